//! The page of `ossnet memory`: one step's bytes, and how they grow.

use crate::order;

use std::fmt::Write;

use super::escape::Escaped;
use super::html::{cell, document, glossary, swatch, table};
use super::number_format::{count, mib};
use super::report_data::Timeline;
use super::resolution::{self, Resolution};
use super::schedules::{self, Schedules};
use super::text_table::TextTable;
use super::{charts, roles};

/// What the page shows.
#[derive(Debug, Clone, Default)]
pub struct MemoryPage {
    /// Heading.
    pub title: String,
    /// The answer, in a sentence or two.
    pub conclusion: String,
    /// What was planned or run.
    pub run: String,
    /// The step's events, if the page is about one step.
    pub timeline: Option<Timeline>,
    /// Layers' shares of the peak, largest first.
    pub by_layer: Vec<(String, u64)>,
    /// What lies on the device: reserved bytes, and what lies beside the ledger.
    pub device: Vec<(String, u64)>,
    /// What lies on the host beside it.
    pub host: Vec<(String, u64)>,
    /// How the peak grows: a table.
    pub growth: Option<TextTable>,
    /// Memory against resolution.
    pub resolution: Vec<Resolution>,
    /// Bytes and time of the schedules of recomputation.
    pub schedules: Option<Schedules>,
}

/// Layers that are listed; the rest are summed.
const LAYERS: usize = 14;

/// The page: one file, no network.
pub fn memory_page(page: &MemoryPage) -> String {
    let mut sections = String::new();
    if let Some(timeline) = &page.timeline {
        sections.push_str(&step_section(page, timeline));
    }
    if let Some(schedules) = &page.schedules {
        sections.push_str(&schedules::section(schedules));
    }
    sections.push_str(&resolution::section(&page.resolution));
    if let Some(growth) = &page.growth {
        let table = table(growth, "Straight lines fitted to plans.");
        let _ = write!(sections, "<section>\n<h2>How the peak grows</h2>\n{table}</section>\n");
    }
    document(&page.title, &page.conclusion, &page.run, &sections)
}

fn step_section(page: &MemoryPage, timeline: &Timeline) -> String {
    let highest = timeline.events.iter().map(|event| event.total()).max().unwrap_or(0);
    let roles = charts::roles_in_use(&[], std::slice::from_ref(timeline));
    let Some(chart) = charts::memory(timeline, highest, &roles) else { return String::new() };
    let caption =
        format!("{} allocations and releases of one step in their order.", count(timeline.events.len() as u64));
    let mut html = String::from("<section>\n<h2>One step</h2>\n");
    html.push_str(&chart.figure("", &caption));
    html.push_str("<h3>At the peak</h3>\n");
    html.push_str(&role_table(timeline, page));
    html.push_str(&layer_table(page));
    html + &glossary() + "</section>\n"
}

/// Roles at the peak, then what the device and what the host holds: two sums, for on CUDA they are two memories.
fn role_table(timeline: &Timeline, page: &MemoryPage) -> String {
    let events = &timeline.events;
    // The first of equals, as on the chart.
    let Some(peak) = (0..events.len()).rev().max_by_key(|&event| events[event].total()) else { return String::new() };
    let mut html = head("Role");
    let mut held: Vec<(&String, u64)> = timeline.roles.iter().zip(events[peak].bytes.iter().copied()).collect();
    held.retain(|(_, bytes)| *bytes > 0);
    order::by_key(&mut held, |(role, _)| roles::rank(role) as u128);
    for (role, bytes) in held {
        let swatch = swatch(&format!("area c{}", roles::rank(role)));
        row(&mut html, &format!("{swatch}{}", Escaped(roles::display(role))), bytes);
    }
    let _ = writeln!(
        html,
        "<tr class=\"total\"><th scope=\"row\">peak</th>{}</tr>",
        cell(&mib(events[peak].total()), false)
    );
    for (place, held) in [("device", &page.device), ("host", &page.host)] {
        for (name, bytes) in held.iter().filter(|(_, bytes)| *bytes > 0) {
            row(&mut html, &Escaped(format!("{place}: {name}")).to_string(), *bytes);
        }
        let all = held.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let all = cell(&mib(all), false);
        let _ = writeln!(html, "<tr class=\"total\"><th scope=\"row\">{place}, in all</th>{all}</tr>");
    }
    html + "</tbody></table></div>\n"
}

/// Layers at the peak, each with a bar as long as its share.
fn layer_table(page: &MemoryPage) -> String {
    if page.by_layer.is_empty() {
        return String::new();
    }
    let longest = page.by_layer[0].1.max(1) as f64;
    let total = page.by_layer.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes)).max(1);
    let mut html = String::from(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Layer</th><th scope=\"col\">MiB</th>\
         <th scope=\"col\">Share</th><th scope=\"col\"></th></tr></thead>\n<tbody>\n",
    );
    let mut line = |name: &str, bytes: u64| {
        let share = bytes as f64 / total as f64;
        let width = super::number_format::short(240.0 * (bytes as f64 / longest).min(1.0));
        let bar = format!(
            "<td class=\"bars\"><svg width=\"240\" height=\"10\" viewBox=\"0 0 240 10\" aria-hidden=\"true\">\
             <rect class=\"share\" width=\"{width}\" height=\"10\" rx=\"2\"/></svg></td>"
        );
        let (bytes, percent) = (cell(&mib(bytes), false), cell(&format!("{:.1} %", 100.0 * share), false));
        let _ = writeln!(html, "<tr><th scope=\"row\">{}</th>{bytes}{percent}{bar}</tr>", Escaped(name));
    };
    page.by_layer.iter().take(LAYERS).for_each(|(name, bytes)| line(name, *bytes));
    let others: u64 = page.by_layer.iter().skip(LAYERS).map(|(_, bytes)| bytes).sum();
    if others > 0 {
        line(&format!("{} others", page.by_layer.len() - LAYERS), others);
    }
    html + "</tbody></table></div>\n"
}

fn head(name: &str) -> String {
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">{name}</th><th scope=\"col\">MiB</th></tr></thead>\n<tbody>\n"
    )
}

/// `name` is markup.
fn row(html: &mut String, name: &str, bytes: u64) {
    let _ = writeln!(html, "<tr><th scope=\"row\">{name}</th>{}</tr>", cell(&mib(bytes), false));
}

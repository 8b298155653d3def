//! Tables as the repository keeps them: tab-separated, a line of heads first.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Set by `scripts/counts.sh`: write the tables instead of comparing.
const WRITE: &str = "OSSNET_WRITE_COUNTS";

/// How a user makes the tables anew.
const REMEDY: &str = "if that is meant: scripts/counts.sh, and commit kernels/counts.tsv and kernels/steps.tsv";

/// A line of a table: what names it, and its figures.
pub struct Row {
    /// Cells that say what the line is about.
    pub names: Vec<String>,
    /// Cells that may change.
    pub figures: Vec<String>,
}

/// A table that was read.
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A line of it.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    table: &'a Table,
    cells: &'a [String],
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

impl Table {
    /// Reads a table of the repository.
    pub fn read(name: &str) -> Self {
        Self::parse(&std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}; {REMEDY}")))
    }

    fn parse(text: &str) -> Self {
        let mut lines = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split('\t').map(str::to_string).collect());
        Self { heads: lines.next().unwrap_or_default(), rows: lines.collect() }
    }

    /// Its lines.
    pub fn rows(&self) -> impl Iterator<Item = Line<'_>> {
        self.rows.iter().map(|cells| Line { table: self, cells })
    }
}

impl<'a> Line<'a> {
    /// The cell under a head.
    pub fn get(self, head: &str) -> &'a str {
        let column = self.table.heads.iter().position(|known| known == head);
        let column = column.unwrap_or_else(|| panic!("no column '{head}' among {:?}", self.table.heads));
        &self.cells[column]
    }

    /// The cell as a number; 0 where there is none.
    pub fn number(self, head: &str) -> f64 {
        self.get(head).parse().unwrap_or(0.0)
    }
}

/// True where the tables are written anew.
pub fn writes() -> bool {
    std::env::var_os(WRITE).is_some()
}

/// Compares `rows` with the committed table `name`, but for the lines whose first name was `skipped`; or writes it.
///
/// # Panics
/// With one line for each figure that differs.
pub fn settle(name: &str, heads: &[&str], rows: &[Row], skipped: impl Fn(&str) -> bool) {
    let cells = |row: &Row| [row.names.as_slice(), &row.figures].concat();
    let mut text = "# Written by scripts/counts.sh; docs/kernels.md says what the columns mean.\n".to_string();
    writeln!(text, "{}", heads.join("\t")).unwrap();
    for row in rows {
        writeln!(text, "{}", cells(row).join("\t")).unwrap();
    }
    if writes() {
        std::fs::write(path(name), text).unwrap();
        return;
    }
    let committed = Table::read(name);
    let mut differences = Vec::new();
    for row in rows {
        let names = row.names.join(", ");
        let Some(known) = committed.rows.iter().find(|cells| cells.starts_with(&row.names)) else {
            differences.push(format!("{names}: not in the table"));
            continue;
        };
        for ((head, now), was) in heads.iter().zip(cells(row)).zip(known) {
            if now != *was {
                differences.push(format!("{names}: {head} {} from {was} to {now}", direction(was, &now)));
            }
        }
    }
    for known in &committed.rows {
        if !skipped(&known[0]) && !rows.iter().any(|row| known.starts_with(&row.names)) {
            differences.push(format!("{}: no longer counted", known[..2.min(known.len())].join(", ")));
        }
    }
    assert!(differences.is_empty(), "{name} is not what the kernels do:\n{}\n{REMEDY}", differences.join("\n"));
}

fn direction(was: &str, now: &str) -> &'static str {
    match (was.parse::<f64>(), now.parse::<f64>()) {
        (Ok(was), Ok(now)) if now > was => "grows",
        (Ok(was), Ok(now)) if now < was => "shrinks",
        _ => "changes",
    }
}

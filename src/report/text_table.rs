//! Aligned plain text in columns.

use crate::text::visible_line;

/// Columns of a terminal that the tables keep to where they can.
pub(super) const WIDTH: usize = 110;
/// Blanks between columns.
const GAP: usize = 2;

/// Cells in rows and columns: the first column is text, the others are figures.
#[derive(Debug, Clone, Default)]
pub struct TextTable {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// One line, whatever names of cases hold.
fn cell(text: impl Into<String>) -> String {
    visible_line(&text.into()).into_owned()
}

impl TextTable {
    /// A table without rows.
    pub fn new<T: Into<String>>(heads: impl IntoIterator<Item = T>) -> Self {
        TextTable { heads: heads.into_iter().map(cell).collect(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each head.
    pub fn push<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut row: Vec<String> = cells.into_iter().map(cell).collect();
        row.resize(self.heads.len(), String::new());
        self.rows.push(row);
    }

    /// Heads and rows.
    #[cfg(feature = "report")]
    pub(super) fn cells(&self) -> (&[String], &[Vec<String>]) {
        (&self.heads, &self.rows)
    }

    fn column_width(&self, column: usize) -> usize {
        self.rows.iter().chain([&self.heads]).map(|row| row[column].chars().count()).max().unwrap_or(0)
    }

    /// Characters of a line.
    pub fn width(&self) -> usize {
        (0..self.heads.len()).map(|column| self.column_width(column) + GAP).sum::<usize>() - GAP
    }

    /// The table with its heads underlined, every line ended.
    pub fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.heads.len()).map(|column| self.column_width(column)).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
        let mut text = String::new();
        for row in [&self.heads, &rule].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // `format!` pads by characters, as the widths were counted.
                match column {
                    0 => line.push_str(&format!("{cell:<width$}")),
                    _ => line.push_str(&format!("{:GAP$}{cell:>width$}", "")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The table, cut into several with the first column repeated where it is too wide.
    pub fn blocks(&self) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut start = 1;
        while start < self.heads.len() {
            let mut end = start + 1;
            let mut width = self.column_width(0) + GAP + self.column_width(start);
            while end < self.heads.len() && width + GAP + self.column_width(end) <= WIDTH {
                width += GAP + self.column_width(end);
                end += 1;
            }
            let part = |row: &Vec<String>| row[..1].iter().chain(&row[start..end]).cloned().collect::<Vec<_>>();
            blocks.push(TextTable { heads: part(&self.heads), rows: self.rows.iter().map(part).collect() }.render());
            start = end;
        }
        blocks
    }
}

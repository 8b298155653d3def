//! Aligned plain text in columns.

use crate::text::visible_line;

/// Columns of a terminal that the tables keep to where they can.
pub(super) const WIDTH: usize = 80;
/// Characters that the first column has at least; below, a table is cut.
const LEAST_FIRST: usize = 8;
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

    /// Characters of a column with its heads in one line. Rows that have nothing but a first cell run across the table.
    fn column_width(&self, column: usize) -> usize {
        let across = |row: &&Vec<String>| column > 0 || row.iter().skip(1).any(|cell| !cell.is_empty());
        let widest = self.rows.iter().filter(across).map(|row| row[column].chars().count()).max().unwrap_or(0);
        widest.max(self.heads[column].chars().count())
    }

    /// The same with its head broken at every blank.
    fn least_width(&self, column: usize) -> usize {
        let without = TextTable { heads: vec![String::new(); self.heads.len()], rows: self.rows.clone() };
        let words = self.heads[column].split(' ').map(|word| word.chars().count());
        words.max().unwrap_or(0).max(without.column_width(column))
    }

    /// Characters of the first column and of the others, and whether heads are broken: as they are where that fits the width,
    /// else as narrow as they go; the first column then takes what is left.
    fn widths(&self) -> Vec<usize> {
        let columns = 0..self.heads.len();
        let sum = |widths: &[usize]| widths.iter().map(|width| width + GAP).sum::<usize>() - GAP;
        let plain: Vec<usize> = columns.clone().map(|column| self.column_width(column)).collect();
        if sum(&plain) <= WIDTH {
            return plain;
        }
        let mut least: Vec<usize> = columns.map(|column| self.least_width(column)).collect();
        let left = WIDTH.saturating_sub(sum(&least) - least[0]);
        if left >= LEAST_FIRST {
            least[0] = least[0].min(left);
        }
        least
    }

    /// True if no line is wider than a terminal.
    pub(super) fn fits(&self) -> bool {
        self.widths().iter().map(|width| width + GAP).sum::<usize>() - GAP <= WIDTH
    }

    /// The table with its heads underlined, every line ended. Where it is wider than a terminal, heads are broken at blanks, first
    /// cells that are too long stand on lines of their own, and what is too wide still is cut into several tables with the first
    /// column repeated.
    pub fn render(&self) -> String {
        let mut blocks = Vec::new();
        let mut start = 1;
        while start < self.heads.len() {
            let part = |end: usize| {
                let part = |row: &Vec<String>| row[..1].iter().chain(&row[start..end]).cloned().collect::<Vec<_>>();
                TextTable { heads: part(&self.heads), rows: self.rows.iter().map(part).collect() }
            };
            let end = (start + 1..=self.heads.len()).rev().find(|&end| part(end).fits()).unwrap_or(start + 1);
            blocks.push(part(end).one());
            start = end;
        }
        blocks.join("\n")
    }

    /// The whole, however wide.
    fn one(&self) -> String {
        let widths = self.widths();
        let heads: Vec<Vec<String>> =
            self.heads.iter().zip(&widths).map(|(head, &width)| broken(head, width)).collect();
        let lines = heads.iter().map(Vec::len).max().unwrap_or(0);
        // Heads stand on the rule.
        let head = |line: usize| -> Vec<String> {
            heads
                .iter()
                .map(|head| (line + head.len()).checked_sub(lines).map_or("", |at| &head[at]).to_string())
                .collect()
        };
        let mut text: String = (0..lines).map(|line| row_line(&head(line), &widths)).collect();
        text += &row_line(&widths.iter().map(|&width| "─".repeat(width)).collect::<Vec<_>>(), &widths);
        for row in &self.rows {
            if row[0].chars().count() > widths[0] {
                text.push_str(&row[0]);
                text.push('\n');
                if row.iter().skip(1).any(|cell| !cell.is_empty()) {
                    text += &row_line(&[&[String::new()], &row[1..]].concat(), &widths);
                }
            } else {
                text += &row_line(row, &widths);
            }
        }
        text
    }
}

/// A head in lines of at most `width` characters, if its words are no longer.
fn broken(head: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in head.split(' ') {
        let last = lines.len() - 1;
        let empty = lines[last].is_empty();
        if !empty && lines[last].chars().count() + 1 + word.chars().count() > width {
            lines.push(word.into());
        } else {
            lines[last] += &if empty { word.to_string() } else { format!(" {word}") };
        }
    }
    lines
}

/// Cells in columns; the first is aligned to the left.
fn row_line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        // `format!` pads by characters, as the widths were counted.
        match column {
            0 => line.push_str(&format!("{cell:<width$}")),
            _ => line.push_str(&format!("{:GAP$}{cell:>width$}", "")),
        }
    }
    line.truncate(line.trim_end().len());
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(heads: &[&str], rows: &[&[&str]]) -> TextTable {
        let mut grid = TextTable::new(heads.iter().copied());
        rows.iter().for_each(|row| grid.push(row.iter().copied()));
        grid
    }

    #[test]
    fn a_narrow_table_is_as_it_is() {
        let text =
            table(&["side", "a network"], &[&["64³", "12.5"], &["a row that runs across all columns of it"]]).render();
        assert_eq!(
            text,
            "side  a network\n────  ─────────\n64³        12.5\na row that runs across all columns of it\n"
        );
    }

    #[test]
    fn a_wide_table_fits_a_terminal() {
        let head = "four words of head";
        let long = "decoder.blocks.0.a.very.long.name.of.a.layer.that.nobody.would.read";
        let text =
            table(&["layer", head, head, head, head, head], &[&[long, "1", "2", "3", "4", "5"], &["short", "6"]])
                .render();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        // Heads at the bottom, the long name alone, its figures below.
        assert!(
            lines[0].trim_start().starts_with("four") && lines.iter().any(|line| line.starts_with("layer ")),
            "{text}"
        );
        let at = lines.iter().position(|line| *line == long).unwrap();
        assert_eq!(lines[at + 1].split_whitespace().collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
        assert_eq!(lines[at + 2].split_whitespace().collect::<Vec<_>>(), ["short", "6"]);
    }

    #[test]
    fn a_table_of_many_columns_becomes_several() {
        let cells: Vec<String> = (0..20).map(|number| format!("{number}234567")).collect();
        let mut grid = TextTable::new(std::iter::once("role".to_string()).chain(cells.clone()));
        grid.push(std::iter::once("parameters".to_string()).chain(cells.clone()));
        let text = grid.render();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH) && text.contains("\n\nrole"), "{text}");
        assert!(cells.iter().all(|cell| text.matches(&format!(" {cell}")).count() == 2), "{text}");
    }
}

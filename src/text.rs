//! Text that came from outside (names of files, cases, classes) on its way to where characters have a meaning: a terminal,
//! a spreadsheet.

use std::borrow::Cow;
use std::fmt::Write;

/// `1 case`, `2 cases`, `2 passes`.
pub fn plural(count: usize, what: &str) -> String {
    let ending = if what.ends_with('s') { "es" } else { "s" };
    format!("{count} {what}{}", if count == 1 { "" } else { ending })
}

/// A text of several lines for a terminal: every other control character, and those that turn the direction of writing, are
/// shown as `\u001b` and so on, which also is how JSON and TOML write them.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| obeyed(character) && !matches!(character, '\n' | '\t'))
}

/// The same for a text that is one line, or a part of one: a name with a line break in it makes no second line.
pub fn visible_line(text: &str) -> Cow<'_, str> {
    escaped(text, obeyed)
}

/// Whether a terminal does something at a character but show it.
fn obeyed(character: char) -> bool {
    // C0, C1 and delete; line and paragraph separators; embeddings, overrides and isolates of direction.
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match wanted(character) {
            true => drop(write!(out, "\\u{:04x}", character as u32)),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// A text for a terminal of so many columns: lines of prose that are wider go on below, behind the label that they begin with if
/// they have one (`cuda    none: …`). Rows of tables, whose gaps of two spaces reach into the second half of a line, stay as they
/// are.
pub fn wrapped(text: &str, columns: usize) -> Cow<'_, str> {
    if text.lines().all(|line| line.chars().count() <= columns) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        wrap_line(line, columns, &mut out);
        out.push_str(end);
    }
    Cow::Owned(out)
}

fn wrap_line(line: &str, columns: usize, out: &mut String) {
    let indent = line.len() - line.trim_start().len();
    let bytes = line.as_bytes();
    // Behind the last gap.
    let label = (indent + 2..bytes.len()).rfind(|&at| bytes[at] != b' ' && bytes[at - 2..at] == *b"  ");
    if line.chars().count() <= columns {
        return out.push_str(line);
    }
    let hang = match label.map(|end| line[..end].chars().count()) {
        Some(hang) if hang <= columns / 2 => hang,
        Some(_) => return out.push_str(line),
        None => indent,
    };
    let (head, rest) = line.split_at(label.unwrap_or(indent));
    out.push_str(head);
    let (mut at, mut first) = (hang, true);
    for word in rest.split(' ') {
        let wide = word.chars().count();
        if !first && at + 1 + wide > columns {
            let _ = write!(out, "\n{:hang$}", "");
            at = hang;
        } else if !first {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        (at, first) = (at + wide, false);
    }
}

/// A cell of a CSV file (RFC 4180): quoted if it holds what would end it. What a spreadsheet would take for a formula gets
/// an apostrophe in front, at which it takes a text.
pub fn csv_cell(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    match formula || text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\"")).into(),
        false => text.into(),
    }
}

/// A path as one word of a shell's command line.
pub fn for_a_shell(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_nothing() {
        assert_eq!(visible("a\tb\nüber µ ≥ 日本\n"), "a\tb\nüber µ ≥ 日本\n");
        assert_eq!(visible_line("a\tb\nc"), "a\\u0009b\\u000ac");
        let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\u{8}\u{7f}\u{9b}31m\u{202e}gpj.exe\u{2066}\u{2029}";
        for shown in [visible(evil), visible_line(evil)] {
            assert!(!shown.chars().any(obeyed), "{shown:?}");
            assert!(
                shown.starts_with("\\u001b]0;owned\\u0007\\u001b[2J\\u000d\\u0008\\u007f\\u009b31m\\u202egpj"),
                "{shown}"
            );
        }
        // JSON stays JSON, and means the same.
        let json = serde_json::to_string(&evil).unwrap();
        assert_eq!(serde_json::from_str::<String>(&visible(&json)).unwrap(), evil);
    }

    #[test]
    fn one_is_no_plural() {
        let told = [plural(1, "case"), plural(0, "case"), plural(1, "pass"), plural(40, "pass")];
        assert_eq!(told, ["1 case", "0 cases", "1 pass", "40 passes"]);
    }

    #[test]
    fn prose_is_wrapped_and_tables_are_not() {
        assert_eq!(wrapped("one two\nthree\n", 7), "one two\nthree\n");
        assert_eq!(wrapped("one two three\n\nfour", 8), "one two\nthree\n\nfour");
        assert_eq!(wrapped("  µµ µµ µµ", 7), "  µµ µµ\n  µµ");
        assert_eq!(wrapped("cuda   none at all on this one", 24), "cuda   none at all on\n       this one");
        assert_eq!(wrapped("a   b   one two three four", 18), "a   b   one two\n        three four");
        let row = "oss-net-c   12.5 MiB   level 3   and so on";
        assert_eq!(wrapped(row, 20), row);
        assert_eq!(wrapped("/a/path/that/is/long yes", 8), "/a/path/that/is/long\nyes");
    }

    #[test]
    fn cells_are_no_formulas() {
        assert_eq!(csv_cell("liver, left"), "\"liver, left\"");
        assert_eq!(csv_cell("case 1-a=b"), "case 1-a=b");
        for cell in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"] {
            assert_eq!(csv_cell(cell), format!("\"'{cell}\""));
        }
        assert_eq!(csv_cell("=\"a\""), "\"'=\"\"a\"\"\"");
    }
}

//! A configuration as TOML with its reasons above the keys.

use super::rules::Reasons;
use crate::error::Result;
use crate::train::config::RunConfig;

/// Columns of a comment.
const WIDTH: usize = 110;

/// `config` as a file; `heading` first, line by line, and above each key of `reasons` its reason.
pub(super) fn commented(config: &RunConfig, heading: &str, reasons: &Reasons) -> Result<String> {
    let mut out: String = heading.lines().flat_map(wrapped).collect();
    out.push('\n');
    let mut section = String::new();
    for line in config.to_toml()?.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, _)) = line.split_once(" = ")
            && let Some(reason) = reasons.get(format!("{section}{key}").as_str())
        {
            out.extend(wrapped(reason));
        }
        out.push_str(line);
        out.push('\n');
    }
    Ok(out)
}

/// A comment, in lines of at most [`WIDTH`] columns where words allow it.
fn wrapped(text: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::from("#"));
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line != "#" {
            lines.push(std::mem::replace(&mut line, String::from("#")) + "\n");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line.trim_end().to_string() + "\n");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::Preset;

    #[test]
    fn comments_stand_above_their_keys_and_the_file_is_read_back() {
        let config = Preset::Auto.config("o-net").unwrap();
        let reasons = Reasons::from([("epochs", "as asked".into()), ("optimizer.rate", "word ".repeat(40))]);
        let text = commented(&config, "one\ntwo", &reasons).unwrap();
        assert!(text.starts_with("# one\n# two\n\n"), "{text}");
        assert!(text.contains("# as asked\nepochs = "), "{text}");
        let (before, after) = text.split_once("\nrate = ").unwrap();
        assert!(before.ends_with("word") && before.contains("[optimizer]") && !after.contains("# word"));
        assert!(text.lines().all(|line| !line.starts_with('#') || line.chars().count() <= WIDTH));
        let read = RunConfig::resolve(Some((std::path::Path::new("plan.toml"), &text)), toml::Table::new(), false);
        assert_eq!(read.unwrap(), config);
    }
}

//! A command line that cannot be parsed, said as every other error is: in one line with its remedy.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Style};
use clap::{ColorChoice, CommandFactory, ValueEnum};

/// What the standard library says of numbers, and how a reader is told.
const NUMBERS: [(&str, &str); 4] = [
    ("invalid digit found in string", "write a whole number"),
    ("number too large to fit in target type", "write a smaller number"),
    ("invalid float literal", "write a number, for example 0.5"),
    ("cannot parse float from empty string", "write a number, for example 0.5"),
];

/// What the parser found wrong, what it thinks was meant, and where to read more.
pub fn line(error: &clap::Error, arguments: &[OsString]) -> String {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n");
    let joined = |part: &str| part.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let problem = joined(parts.next().unwrap_or_default().trim_start_matches("error: "));
    let tips = parts.map(joined).filter_map(|part| Some(part.strip_prefix("tip: ")?.to_string()));
    let tips: String = tips.map(|tip| format!("; {}", tip.replace(" tip: ", "; "))).collect();
    let problem = NUMBERS.iter().fold(problem, |text, (plain, better)| text.replace(plain, better));
    let known = super::Cli::command();
    let mut named = arguments.iter().skip(1).filter_map(|argument| known.find_subcommand(argument.to_str()?));
    let command = named.next().map_or(String::new(), |command| format!("{} ", command.get_name()));
    format!("{}{tips} (see ossnet {command}--help)", of_variable(problem, arguments))
}

/// Flags that variables stand for.
const OF_VARIABLES: [&str; 5] = ["--threads", "--memory-budget", "--device", "--progress", "--color"];

/// A problem with a flag that nobody gave is one with the variable that stands for it.
fn of_variable(problem: String, arguments: &[OsString]) -> String {
    let named = OF_VARIABLES.iter().find_map(|flag| {
        let begin = problem.find(&format!("'{flag} <"))?;
        let end = begin + 1 + problem[begin + 1..].find('\'')?;
        let mut words = arguments.iter().filter_map(|argument| argument.to_str());
        let given = words.any(|word| word.starts_with(flag) || *flag == "--threads" && word.starts_with("-j"));
        (!given).then(|| (begin..end + 1, format!("OSSNET_{}", flag[2..].replace('-', "_").to_uppercase())))
    });
    match named {
        Some((place, variable)) => problem.replacen(&problem[place], &variable, 1),
        None => problem,
    }
}

/// What `--color` or its variable says, before anything is parsed.
pub fn colour(arguments: &[OsString]) -> ColorChoice {
    let words = || arguments.iter().filter_map(|argument| argument.to_str());
    let joined = words().find_map(|word| word.strip_prefix("--color="));
    let apart = words().skip_while(|word| *word != "--color").nth(1);
    let variable = std::env::var("OSSNET_COLOR").ok();
    let said = joined.or(apart).or(variable.as_deref());
    said.and_then(|said| ColorChoice::from_str(said, true).ok()).unwrap_or_default()
}

/// The style of what precedes an error, if standard error shows colours.
pub fn red(choice: ColorChoice) -> Style {
    let shown = match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            std::io::stderr().is_terminal() && !refused && std::env::var("TERM").is_ok_and(|term| term != "dumb")
        }
    };
    if shown { AnsiColor::Red.on_default().bold() } else { Style::new() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn said(text: &str) -> String {
        let words: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        let error = super::super::Cli::try_parse_from(&words).err().expect(text);
        line(&error, &words)
    }

    #[test]
    fn a_refusal_is_one_line() {
        for text in [
            "ossnet mesh",
            "ossnet mesh a --out",
            "ossnet mesh a --out b --labell 3",
            "ossnet mech",
            "ossnet mesh a -j x",
        ] {
            let line = said(text);
            assert!(!line.contains('\n') && !line.contains("Usage") && line.ends_with("--help)"), "{line}");
        }
        assert!(said("ossnet mesh a --out b --labell 3").contains("'--label'"));
        assert!(said("ossnet mech").contains("'mesh'"));
        assert!(said("ossnet mesh a --out b -j x").contains(": write a whole number (see"));
        assert!(said("ossnet mesh a --out b --threshold x").contains(": write a number, for example 0.5 (see"));
        assert!(said("ossnet mesh").ends_with("(see ossnet mesh --help)"), "{}", said("ossnet mesh"));
    }

    #[test]
    fn a_variable_is_named_where_no_flag_is_given() {
        let told = |arguments: &str| {
            let words: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
            of_variable("invalid value 'x' for '--threads <N>': write a whole number".into(), &words)
        };
        assert_eq!(told("ossnet memory"), "invalid value 'x' for OSSNET_THREADS: write a whole number");
        for given in ["ossnet memory --threads x", "ossnet memory -j x", "ossnet memory --threads=x"] {
            assert!(told(given).contains("'--threads <N>'"), "{given}");
        }
        let other = "invalid value 'x' for '--points <N>'";
        assert_eq!(of_variable(other.into(), &[]), other);
    }

    #[test]
    fn colour_is_told_before_parsing() {
        let of = |text: &str| colour(&text.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of("ossnet --color always"), ColorChoice::Always);
        assert_eq!(of("ossnet mesh --color=never"), ColorChoice::Never);
        assert_eq!(red(ColorChoice::Never).to_string(), "");
        assert!(red(ColorChoice::Always).to_string().contains("31"));
    }
}

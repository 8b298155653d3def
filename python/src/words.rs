//! The engine's messages speak of the command's flags. Whoever reads them in Python has arguments instead.

use ossnet::models::RecomputeChoice;

/// How what follows a flag is written as an argument's value.
#[derive(Clone, Copy)]
enum Form {
    /// Nothing follows.
    Switch,
    /// A whole number.
    Number,
    /// `8GiB`.
    Bytes,
    /// One of these names.
    Name(&'static [&'static str]),
    /// `96x96x96`.
    Shape,
    /// A level of recomputation, a schedule or `auto`.
    Level,
}

impl Form {
    /// The value as Python has it; `None` if `text` is none, but the message goes on.
    fn written(self, text: &str) -> Option<String> {
        let whole = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Form::Switch => None,
            Form::Number => whole(text).then(|| text.into()),
            Form::Bytes => text.starts_with(|first: char| first.is_ascii_digit()).then(|| format!("'{text}'")),
            Form::Name(names) => {
                let name = names.iter().any(|name| text.split(':').next() == Some(name));
                name.then(|| format!("'{text}'"))
            }
            Form::Shape => {
                let sides: Vec<&str> = text.split('x').collect();
                (sides.len() == 3 && sides.iter().all(|side| whole(side))).then(|| format!("({})", sides.join(", ")))
            }
            Form::Level if whole(text) => Some(text.into()),
            Form::Level => text.parse::<RecomputeChoice>().ok().map(|_| format!("'{text}'")),
        }
    }
}

/// What the engine's messages may name, and the argument of the same meaning.
const ARGUMENTS: [(&str, &str, Form); 20] = [
    ("batch", "batch", Form::Number),
    ("channels", "channels", Form::Number),
    ("dense", "dense", Form::Switch),
    ("device", "device", Form::Name(&["cpu", "cuda"])),
    ("label", "label", Form::Number),
    ("memory-budget", "memory_budget", Form::Bytes),
    ("models", "models", Form::Switch),
    ("outputs", "outputs", Form::Number),
    ("overlap", "overlap", Form::Switch),
    ("plan-for", "device", Form::Name(&["cpu", "cuda"])),
    ("points", "points", Form::Number),
    ("points-at-once", "points_at_once", Form::Number),
    ("precision", "precision", Form::Name(&["f32", "tf32", "bf16"])),
    ("probabilities", "probabilities", Form::Switch),
    ("recompute", "recompute", Form::Level),
    ("sweep", "sides", Form::Switch),
    ("threads", "threads", Form::Number),
    ("threshold", "threshold", Form::Switch),
    ("volume", "volume", Form::Shape),
    ("window", "window", Form::Shape),
];

/// What is mended in another way than on the command line.
const REMEDIES: [(&str, &str); 6] = [
    ("ask for a coarser --resolution or --spacing", "resample the scan to a coarser grid"),
    ("build it with --features cuda, or use --device cpu", "use device='cpu'"),
    ("give --memory-budget what ossnet memory --plan-for prints as reserved", "give memory_budget a number of bytes"),
    (", and training without --graph needs least of the driver", ""),
    ("case array has", "the array has"),
    (
        "give one file with all of them along the fourth axis, or one file a channel in this order",
        "give all of them along its fourth axis, in this order",
    ),
];

/// A message in Python's terms: `--memory-budget 8GiB` is `memory_budget='8GiB'`. Flags that no function has an argument for
/// stay.
pub fn in_python(message: &str) -> String {
    let line = REMEDIES.iter().fold(message.to_string(), |line, (command, python)| line.replace(command, python));
    let (mut told, mut rest) = (String::new(), line.as_str());
    while let Some(at) = rest.find("--") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        told += before;
        let (flag, follows) =
            after.split_at(after.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(after.len()));
        // Two dashes within a file's name are no flag.
        let begins = !told.ends_with(|c: char| c.is_alphanumeric() || "/-_.".contains(c));
        let Some((_, argument, form)) = ARGUMENTS.iter().find(|(name, ..)| begins && *name == flag) else {
            (told, rest) = (told + "--" + flag, follows);
            continue;
        };
        told += argument;
        rest = follows;
        let word = follows.strip_prefix(' ').map(|text| text.split([' ', ',', ';', ')']).next().unwrap_or(text));
        let word = word.map(|word| word.trim_end_matches([':', '.']));
        if let Some((word, value)) = word.and_then(|word| Some((word, form.written(word)?))) {
            told += &format!("={value}");
            rest = &follows[1 + word.len()..];
            // Of several flags, which the command takes side by side.
            told += if rest.starts_with(" --") { "," } else { "" };
        }
    }
    told + rest
}

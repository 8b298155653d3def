//! PTX with its virtual registers named by how long ago they were new: it packs to less than half.
//!
//! nvcc numbers a kernel's registers in no order, so that the same instructions look different wherever they stand. Here the
//! registers of each class (`%r`, `%f`, `%rd`, …) of a kernel are numbered anew, 1, 2, …, in the order in which they appear, and
//! written as `%f+` where a number is new, else as `%f-12`: twelve before the last new one. Nothing else changes; a driver's
//! compiler does not care what registers are called.
//!
//! `build.rs` includes this file to write what the program reads.

/// Classes of registers in nvcc's PTX.
const CLASSES: [&str; 8] = ["p", "rs", "r", "rd", "f", "fd", "h", "hh"];

/// What each kernel begins with.
const ENTRY: &str = ".visible .entry ";

/// The class that `text`, what follows a `%`, begins with, and the rest, which `begins` with what belongs to a register.
fn class(text: &str, begins: impl Fn(char) -> bool) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_lowercase())?;
    let (name, rest) = text.split_at(end);
    let class = CLASSES.iter().position(|&class| class == name)?;
    rest.starts_with(begins).then_some((class, rest))
}

/// The number that `text` begins with, and the rest.
fn number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// `text` with whatever `replace` makes of what follows each `%` of a kernel: the replacement and what follows it.
/// `replace` is told when a kernel begins.
fn rewrite(text: &str, mut replace: impl FnMut(Step<'_>) -> Option<(String, usize)>) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if line.starts_with(ENTRY) {
            replace(Step::Kernel);
        }
        let mut rest = line;
        while let Some(at) = rest.find('%') {
            let (before, after) = (&rest[..=at], &rest[at + 1..]);
            out.push_str(before);
            rest = after;
            if let Some((replacement, left)) = replace(Step::Percent(after)) {
                out.push_str(&replacement);
                rest = &after[after.len() - left..];
            }
        }
        out.push_str(rest);
    }
    out
}

enum Step<'a> {
    Kernel,
    Percent(&'a str),
}

/// See the page.
pub fn encode(ptx: &str) -> String {
    let (mut numbers, mut last) = (std::collections::HashMap::new(), [0usize; CLASSES.len()]);
    rewrite(ptx, |step| {
        let Step::Percent(text) = step else {
            (numbers, last) = (std::collections::HashMap::new(), [0; CLASSES.len()]);
            return None;
        };
        let (class, rest) = class(text, |c| c.is_ascii_digit())?;
        let (old, rest) = number(rest)?;
        let count = &mut last[class];
        let name = CLASSES[class];
        let told = match numbers.get(&(class, old)) {
            Some(new) => format!("{name}-{}", *count - new),
            None => {
                *count += 1;
                numbers.insert((class, old), *count);
                format!("{name}+")
            }
        };
        Some((told, rest.len()))
    })
}

/// The PTX of what [`encode`] made; its registers are numbered in the order of their appearance.
pub fn decode(text: &str) -> String {
    let mut last = [0usize; CLASSES.len()];
    rewrite(text, |step| {
        let Step::Percent(text) = step else {
            last = [0; CLASSES.len()];
            return None;
        };
        let (class, rest) = class(text, |c| c == '+' || c == '-')?;
        let (back, rest) = match rest.strip_prefix('-') {
            Some(rest) => number(rest)?,
            None => {
                last[class] += 1;
                (0, &rest[1..])
            }
        };
        Some((format!("{}{}", CLASSES[class], last[class].checked_sub(back)?), rest.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// What follows a `%`: a register's class and number if it is one, and the rest.
    fn register(piece: &str) -> Option<((usize, usize), &str)> {
        let (class, rest) = class(piece, |c| c.is_ascii_digit())?;
        let (number, rest) = number(rest)?;
        Some(((class, number), rest))
    }

    /// Equal but for the numbers of registers, which correspond one to one in each kernel.
    fn assert_renamed(ours: &str, theirs: &str) {
        assert_eq!(ours.lines().count(), theirs.lines().count());
        let (mut there, mut back) = (HashMap::new(), HashMap::new());
        for (ours, theirs) in ours.lines().zip(theirs.lines()) {
            if ours.starts_with(ENTRY) {
                (there, back) = (HashMap::new(), HashMap::new());
            }
            assert_eq!(ours.split('%').count(), theirs.split('%').count());
            for (a, b) in ours.split('%').zip(theirs.split('%')) {
                let (Some((a, rest_a)), Some((b, rest_b))) = (register(a), register(b)) else {
                    assert_eq!(a, b);
                    continue;
                };
                assert_eq!((a.0, rest_a), (b.0, rest_b));
                assert_eq!((*there.entry(a).or_insert(b), *back.entry(b).or_insert(a)), (b, a));
            }
        }
    }

    #[test]
    fn what_is_packed_is_what_was_compiled_but_for_the_registers_names() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/ptx");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "ptx") {
                continue;
            }
            let ptx = std::fs::read_to_string(&path).unwrap();
            let told = encode(&ptx);
            assert!(told.contains("%r+") && !told.contains("%r1"), "{}", path.display());
            assert_renamed(&decode(&told), &ptx);
            assert_eq!(encode(&decode(&told)), told, "{}", path.display());
            files += 1;
        }
        assert!(files > 40, "{files} files");
    }

    #[test]
    fn what_is_no_register_stays() {
        let ptx = ".visible .entry a(\n.reg .b32 %r<5>;\nmov.u32 %r4, %tid.x;\nmov.u64 %rd9, %clock64;\n\
                   ld.global.f32 %f7, [%rd9+16];\nadd.s32 %r2, %r4, %r4;\n";
        let told = encode(ptx);
        assert_eq!(
            told,
            ".visible .entry a(\n.reg .b32 %r<5>;\nmov.u32 %r+, %tid.x;\nmov.u64 %rd+, %clock64;\n\
             ld.global.f32 %f+, [%rd-0+16];\nadd.s32 %r+, %r-1, %r-1;\n"
        );
        assert_renamed(&decode(&told), ptx);
    }
}

//! The PTX of a kernel with its registers and labels named by how long ago they were new: it packs to a third.
//!
//! nvcc numbers a kernel's registers in no order, so that the same instructions look different wherever they stand. Here the
//! registers of each class (`%r`, `%f`, `%rd`, …) are numbered anew, 1, 2, …, in the order in which they appear, and written
//! as `%f+` where a number is new, else as `%f-12`: twelve before the last new one. Labels, `$L__BB3_17`, become `$+` and `$-2`
//! likewise, and the kernel's own name becomes `#`. Nothing else changes; a driver's compiler does not care what registers and
//! labels are called.
//!
//! `build.rs` includes this file to write what the program reads.

use std::collections::HashMap;

/// Classes of registers in nvcc's PTX, and what labels count as.
const CLASSES: [&str; 9] = ["p", "rs", "r", "rd", "f", "fd", "h", "hh", "$"];

/// The class of labels.
const LABEL: usize = CLASSES.len() - 1;

/// What nvcc's labels begin with.
const LABELS: &str = "$L__BB";

/// The class of the register that `text`, what follows a `%`, begins with, and the rest.
fn class(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_lowercase())?;
    let (name, rest) = text.split_at(end);
    Some((CLASSES.iter().position(|&class| class == name)?, rest))
}

/// The number that `text` begins with, and the rest.
fn number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The class and the numbers of the register or label that `named` begins with, and the rest. A label has two.
fn numbered(named: &str) -> Option<(usize, (usize, usize), &str)> {
    if let Some(label) = named.strip_prefix(LABELS) {
        let (file, label) = number(label)?;
        let (label, rest) = number(label.strip_prefix('_')?)?;
        return Some((LABEL, (file, label), rest));
    }
    let (class, rest) = class(named.strip_prefix('%')?)?;
    let (number, rest) = number(rest)?;
    Some((class, (0, number), rest))
}

/// `text` with whatever `replace` makes of what begins with a `%` or `$`: the replacement and what follows it.
fn rewrite<'a>(text: &'a str, mut replace: impl FnMut(&'a str) -> Option<(String, &'a str)>) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(['%', '$']) {
        let (before, named) = rest.split_at(at);
        out.push_str(before);
        let (replacement, after) = replace(named).unwrap_or_else(|| (named[..1].into(), &named[1..]));
        out.push_str(&replacement);
        rest = after;
    }
    out + rest
}

/// The PTX of kernel `name`, encoded. See the page.
pub fn encode(ptx: &str, name: &str) -> String {
    let ptx = ptx.replace(&format!("{name}_param_"), "#_").replace(&format!(" {name}("), " #(");
    let (mut numbers, mut last) = (HashMap::new(), [0usize; CLASSES.len()]);
    rewrite(&ptx, |named| {
        let (class, old, rest) = numbered(named)?;
        let count = &mut last[class];
        let told = match numbers.get(&(class, old)) {
            Some(new) => format!("-{}", *count - new),
            None => {
                *count += 1;
                numbers.insert((class, old), *count);
                "+".into()
            }
        };
        let begin = if class == LABEL { "$".into() } else { format!("%{}", CLASSES[class]) };
        Some((begin + &told, rest))
    })
}

/// The PTX of what [`encode`] made of kernel `name`; its registers and labels are numbered in the order of their appearance.
pub fn decode(text: &str, name: &str) -> String {
    let mut last = [0usize; CLASSES.len()];
    let ptx = rewrite(text, |named| {
        let (class, rest) = match named.strip_prefix('%') {
            Some(register) => class(register)?,
            None => (LABEL, &named[1..]),
        };
        let (back, rest) = match rest.strip_prefix('-') {
            Some(rest) => number(rest)?,
            None => {
                let rest = rest.strip_prefix('+')?;
                last[class] += 1;
                (0, rest)
            }
        };
        let begin = if class == LABEL { format!("{LABELS}0_") } else { format!("%{}", CLASSES[class]) };
        Some((format!("{begin}{}", last[class].checked_sub(back)?), rest))
    });
    ptx.replace("#_", &format!("{name}_param_")).replace(" #(", &format!(" {name}("))
}

#[cfg(test)]
mod tests {
    use super::super::cut;
    use super::*;

    /// What of `text` is a register or label, told as its class and number, and all between them.
    fn parts(text: &str) -> (String, Vec<(usize, usize, usize)>) {
        let mut found = Vec::new();
        let between = rewrite(text, |named| {
            let (class, (file, number), rest) = numbered(named)?;
            found.push((class, file, number));
            Some((CLASSES[class].to_uppercase(), rest))
        });
        (between, found)
    }

    /// Equal but for the numbers of registers and labels, which correspond one to one.
    fn assert_renamed(ours: &str, theirs: &str) {
        let ((ours, of_ours), (theirs, of_theirs)) = (parts(ours), parts(theirs));
        assert!(ours == theirs && of_ours.len() == of_theirs.len());
        let (mut there, mut back) = (HashMap::new(), HashMap::new());
        for (a, b) in of_ours.into_iter().zip(of_theirs) {
            assert_eq!((a.0, *there.entry(a).or_insert(b), *back.entry(b).or_insert(a)), (b.0, b, a));
        }
    }

    #[test]
    fn what_is_packed_is_what_was_compiled_but_for_the_names_of_registers_and_labels() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/ptx");
        let mut kernels = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "ptx") {
                continue;
            }
            for (name, ptx) in cut::cut(&std::fs::read_to_string(&path).unwrap()).unwrap().kernels {
                let told = encode(&ptx, &name);
                assert!(!told.contains("%r1") && !told.contains(LABELS) && told.contains(".entry #("), "{name}");
                assert_renamed(&decode(&told, &name), &ptx);
                assert_eq!(encode(&decode(&told, &name), &name), told, "{name}");
                kernels += 1;
            }
        }
        assert!(kernels > 200, "{kernels} kernels");
    }

    #[test]
    fn what_is_no_register_stays() {
        let ptx = ".visible .entry a(\n.param .u64 a_param_0\n.reg .b32 %r<5>;\nmov.u32 %r4, %tid.x;\nmov.u64 %rd9, %clock64;\n\
                   $L__BB7_3:\nld.global.f32 %f7, [%rd9+16];\nadd.s32 %r2, %r4, %r4;\nbra $L__BB7_5;\nbra $L__BB7_3;\n$L__BB7_5:\n";
        let told = encode(ptx, "a");
        assert_eq!(
            told,
            ".visible .entry #(\n.param .u64 #_0\n.reg .b32 %r<5>;\nmov.u32 %r+, %tid.x;\nmov.u64 %rd+, %clock64;\n\
             $+:\nld.global.f32 %f+, [%rd-0+16];\nadd.s32 %r+, %r-1, %r-1;\nbra $+;\nbra $-1;\n$-0:\n"
        );
        assert_renamed(&decode(&told, "a"), ptx);
    }
}

//! A file of kernels cut into its kernels, so that each is loaded, and compiled by the driver, alone.
//!
//! nvcc writes one PTX file for a source file: a head (`.version`, `.target`, `.address_size`), declarations at file scope
//! (shared memory that several kernels use), and the kernels. A kernel alone is the head, the declarations that it names, and
//! itself. Comments go. Variables of the device's memory and functions would have to be shared between the pieces: a file with
//! such is refused.
//!
//! `build.rs` includes this file.

/// What each kernel of a file begins with.
const ENTRY: &str = ".visible .entry ";

/// Directives that every piece needs.
const HEAD: [&str; 3] = [".version ", ".target ", ".address_size "];

/// Declarations that each piece may have for itself: shared memory is a block's own, constants are the same everywhere.
const OWN: [&str; 3] = [".shared ", ".extern .shared ", ".const "];

/// A file of PTX in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// What stands before every kernel.
    pub head: String,
    /// Name of each kernel, and its text with the declarations that it needs.
    pub kernels: Vec<(String, String)>,
}

/// True if `text` holds `name` with no other letter of a name beside it.
fn mentions(text: &str, name: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    text.match_indices(name).any(|(at, _)| {
        let after = text[at + name.len()..].chars().next();
        let before = text[..at].chars().next_back();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

/// The name that a declaration declares: what stands before its length, its value or its end.
fn declared(declaration: &str) -> Option<&str> {
    declaration.split(['[', '=', ';']).next()?.split_whitespace().next_back()
}

/// Cuts `ptx` at its kernels.
///
/// # Errors
/// The first line that is neither part of the head nor a declaration that each kernel may have for itself.
pub fn cut(ptx: &str) -> Result<Pieces, String> {
    let mut pieces = Pieces::default();
    let mut declarations: Vec<String> = Vec::new();
    let mut open: Option<(String, String)> = None;
    let mut declaration = String::new();
    for line in ptx.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//")) {
        if let Some((name, mut text)) = open.take() {
            text += line;
            text.push('\n');
            match line == "}" {
                true => {
                    let needed = declarations.iter().filter(|it| declared(it).is_some_and(|it| mentions(&text, it)));
                    let needed: String = needed.map(String::as_str).collect();
                    pieces.kernels.push((name, needed + &text));
                }
                false => open = Some((name, text)),
            }
        } else if let Some(rest) = line.strip_prefix(ENTRY) {
            let name = rest.split('(').next().unwrap_or(rest);
            open = Some((name.to_string(), format!("{line}\n")));
        } else if HEAD.iter().any(|known| line.starts_with(known)) {
            pieces.head += &format!("{line}\n");
        } else if !declaration.is_empty() || OWN.iter().any(|known| line.starts_with(known)) {
            declaration += &format!("{line}\n");
            if line.trim_end().ends_with(';') {
                declarations.push(std::mem::take(&mut declaration));
            }
        } else {
            return Err(format!("'{}' cannot stand outside a kernel: kernels are loaded one by one", line.trim()));
        }
    }
    match open {
        Some((name, _)) => Err(format!("kernel {name} has no end")),
        None => Ok(pieces),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_what_it_names() {
        let ptx = "// of a compiler\n.version 8.1\n.target sm_80\n\n.extern .shared .align 16 .b8 all[];\n\
                   .shared .align 4 .b8 part[16];\n.visible .entry a(\n\t.param .u64 a_param_0\n)\n{\n\t// a comment\n\
                   \tmov.u32 %r1, part;\n\tret;\n\n}\n\t// .globl\tb\n.visible .entry b(\n\n)\n{\n\tmov.u32 %r1, all;\n\
                   \tmov.u32 %r1, part2;\n}\n";
        let pieces = cut(ptx).unwrap();
        assert_eq!(pieces.head, ".version 8.1\n.target sm_80\n");
        let [(a, of_a), (b, of_b)] = &pieces.kernels[..] else { panic!("{pieces:?}") };
        assert_eq!((a.as_str(), b.as_str()), ("a", "b"));
        assert_eq!(
            of_a,
            ".shared .align 4 .b8 part[16];\n.visible .entry a(\n\t.param .u64 a_param_0\n)\n{\n\tmov.u32 %r1, part;\n\tret;\n}\n"
        );
        assert!(of_b.starts_with(".extern .shared .align 16 .b8 all[];\n.visible .entry b(") && !of_b.contains("16]"));
    }

    #[test]
    fn what_kernels_would_share_is_refused() {
        for line in [".global .align 4 .u32 counter;", ".visible .func (.param .b32 f) f(", "nonsense"] {
            let problem = cut(&format!(".version 8.1\n{line}\n")).unwrap_err();
            assert!(problem.contains(line), "{problem}");
        }
        assert!(cut(".visible .entry a()\n{\n").unwrap_err().contains("no end"));
    }

    #[test]
    fn every_committed_file_can_be_cut() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/ptx");
        let mut kernels = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "ptx") {
                continue;
            }
            let ptx = std::fs::read_to_string(&path).unwrap();
            let pieces = cut(&ptx).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
            assert_eq!(pieces.head.lines().count(), 3, "{}", path.display());
            // Nothing of a kernel is lost: the instructions are as many as before.
            let count = |text: &str| text.lines().filter(|line| line.starts_with('\t') && line.ends_with(';')).count();
            let (whole, cut): (usize, usize) = (count(&ptx), pieces.kernels.iter().map(|(_, text)| count(text)).sum());
            assert_eq!(whole, cut, "{}", path.display());
            kernels += pieces.kernels.len();
        }
        assert!(kernels > 200, "{kernels}");
    }
}

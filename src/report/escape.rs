//! Text that came from outside (names of cases, ops, folders) on its way into HTML.

use std::fmt::{Display, Formatter, Result, Write};

/// Shows a value with the five characters that HTML gives a meaning replaced; safe as text and within quoted attributes.
pub(super) struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut Formatter) -> Result {
        write!(Escaper(f), "{}", self.0)
    }
}

struct Escaper<'a, 'b>(&'a mut Formatter<'b>);

impl Write for Escaper<'_, '_> {
    fn write_str(&mut self, text: &str) -> Result {
        for character in text.chars() {
            match character {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                // Control characters are not allowed in HTML; a file name may hold them.
                control if control.is_control() && !matches!(control, '\n' | '\t') => self.0.write_char('\u{fffd}')?,
                other => self.0.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_defused() {
        assert_eq!(Escaped("<a b='c'>&\"\u{7}").to_string(), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;\u{fffd}");
        assert_eq!(Escaped("Dice 0.9, µ, ≥").to_string(), "Dice 0.9, µ, ≥");
    }
}

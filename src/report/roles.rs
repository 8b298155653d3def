//! The roles of memory: their order, colour and meaning on the page.

/// Every role of the ledger with what it means to a reader, in the order of stacking: what stays through a step first.
pub(super) const GLOSSARY: [(&str, &str); 10] = [
    ("parameter", "the model's weights"),
    ("gradient", "the loss' derivative for every weight"),
    ("optimiser state", "what the optimiser remembers of earlier steps (moments, slow weights)"),
    ("normalisation buffer", "running statistics of the normalisation layers"),
    ("saved activation", "values of the forward pass kept until the backward pass has used them"),
    ("transient", "values that live only until the next op has read them"),
    ("workspace", "scratch memory of a single op"),
    ("data", "the scan, its label and the sampled coordinates"),
    ("staging", "copies on the way between disk, host and device"),
    ("output", "predictions that the caller asked for"),
];

/// The name of `role` as on the page: the ledger's keys may be written with underscores or hyphens.
pub(super) fn display(role: &str) -> String {
    role.replace(['_', '-'], " ")
}

/// Index of the role's colour (classes `c0` to `c9` of the style sheet); `position` serves for roles not known here.
pub(super) fn colour(role: &str, position: usize) -> usize {
    let name = display(role).to_lowercase();
    let singular = name.strip_suffix('s').unwrap_or(&name);
    GLOSSARY.iter().position(|(known, _)| *known == name || *known == singular).unwrap_or(position % GLOSSARY.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_any_spelling_have_the_role_s_colour() {
        for key in ["optimiser state", "optimiser_state", "Optimiser-State", "optimiser_states"] {
            assert_eq!(colour(key, 9), 2);
        }
        assert_eq!(colour("something else", 13), 3);
    }
}

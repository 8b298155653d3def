//! The roles of memory: their order, colour and meaning on the page.

/// Every role of the ledger with what it means to a reader, in the order of tables and stacking: what stays through a
/// step lies below what comes and goes.
pub(super) const GLOSSARY: [(&str, &str); 10] = [
    ("parameter", "the model's weights"),
    ("optimiser state", "what the optimiser remembers of earlier steps (moments, slow weights)"),
    ("normalisation buffer", "running statistics of the normalisation layers"),
    ("data", "the scan, its label and the sampled coordinates"),
    ("staging", "copies on the way between disk, host and device"),
    ("output", "predictions that the caller asked for"),
    ("gradient", "the loss' derivative for every weight"),
    ("saved activation", "values of the forward pass kept until the backward pass has used them"),
    ("transient", "values that live only until the next op has read them"),
    ("workspace", "scratch memory of a single op"),
];

/// The name of `role` as on the page: the ledger's keys may be written with underscores or hyphens.
pub(super) fn display(role: &str) -> String {
    role.replace(['_', '-'], " ")
}

/// The role's place in the glossary, which is also its colour (classes `c0` to `c9` of the style sheet). Roles that are
/// not known here come last and share its colour.
pub(super) fn rank(role: &str) -> usize {
    let name = display(role).to_lowercase();
    let singular = name.strip_suffix('s').unwrap_or(&name);
    let place = GLOSSARY.iter().position(|(known, _)| *known == name || *known == singular);
    place.unwrap_or(GLOSSARY.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_any_spelling_have_the_role_s_colour() {
        for key in ["optimiser state", "optimiser_state", "Optimiser-State", "optimiser_states"] {
            assert_eq!(rank(key), 1);
        }
        assert_eq!(rank("something else"), GLOSSARY.len() - 1);
    }
}

//! The roles of memory: their order, colour and meaning on the page.

/// A role of the ledger.
pub(super) struct Entry {
    /// Its key in JSON.
    key: &'static str,
    /// Its name for a reader.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn entry(key: &'static str, name: &'static str, meaning: &'static str) -> Entry {
    Entry { key, name, meaning }
}

/// Every role of the ledger in the order of tables and stacking: what stays through a step lies below what comes and
/// goes.
pub(super) const GLOSSARY: [Entry; 10] = [
    entry("parameter", "parameters", "the model's weights"),
    entry("optimizer_state", "optimiser state", "what the optimiser remembers of each weight (moments, slow weights)"),
    entry("norm_buffer", "normalisation buffers", "running statistics of the normalisation layers"),
    entry("data", "data", "the scan, its label and the sampled coordinates"),
    entry("staging", "staging", "host memory on its way to a device"),
    entry("output", "output", "results kept after the step"),
    entry("gradient", "gradients", "the derivative of the loss for every weight"),
    entry("saved", "saved activations", "values of the forward pass kept until the backward pass has used them"),
    entry("transient", "transient", "activations and their gradients that live for a few ops"),
    entry("workspace", "workspace", "scratch memory of a single op"),
];

/// The name of a role for a reader; a key that is not known here is shown as it is, without underscores.
pub fn display(key: &str) -> String {
    GLOSSARY.iter().find(|entry| entry.key == key).map_or_else(|| key.replace('_', " "), |entry| entry.name.into())
}

/// The role's place in the glossary, which is also its colour (classes `c0` to `c9` of the style sheet). Roles that are
/// not known here come last and share its colour.
pub(super) fn rank(key: &str) -> usize {
    GLOSSARY.iter().position(|entry| entry.key == key).unwrap_or(GLOSSARY.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Role;

    #[test]
    fn every_role_of_the_ledger_is_explained_once() {
        let mut ranks = Role::ALL.map(|role| rank(role.name()));
        ranks.sort_unstable();
        assert_eq!(ranks, std::array::from_fn(|rank| rank));
        for role in Role::ALL {
            assert!(GLOSSARY.iter().any(|entry| entry.key == role.name()), "{}", role.name());
        }
    }

    #[test]
    fn foreign_roles_are_shown_last_and_as_they_are() {
        assert_eq!((rank("page_cache"), display("page_cache")), (9, "page cache".to_string()));
    }
}

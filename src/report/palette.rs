//! The colour of a network: one for each name on every page, whatever stands beside it.

/// Numbers of the style sheet's colours `m8` and on, for networks that are not known here.
const OTHERS: u32 = 4;

/// Classes of a network in every chart, table and legend: `m0` and so on, with `small` for small variants and `changed` for
/// your own sizes. PyTorch's figures have the colour of the network that they are of.
pub(super) fn network(name: &str) -> String {
    let plain = name.strip_prefix("PyTorch ").unwrap_or(name);
    let known = |part: &str| plain.contains(part);
    let number = if known("U-Net") {
        if known("2D") { 3 } else { 1 }
    } else if let Some(letter) = plain.split("OSS-Net ").nth(1).and_then(|rest| rest.chars().next()) {
        match letter {
            'A' => 5,
            'B' => 6,
            'C' => 0,
            'D' => 4,
            _ => other(plain),
        }
    } else if plain.starts_with("O-Net") {
        2
    } else {
        other(plain)
    };
    let small = if known(" small") { " small" } else { "" };
    let changed = if known("(") && !known("(recorded)") { " changed" } else { "" };
    format!("m{number}{small}{changed}")
}

/// One of a few colours, the same for the same name (FNV-1a).
fn other(name: &str) -> u32 {
    let hash = name.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    8 + hash % OTHERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_colour_and_variants_are_told_apart() {
        let names = [
            "O-Net",
            "O-Net small",
            "O-Net (narrow)",
            "OSS-Net A",
            "OSS-Net B",
            "OSS-Net C",
            "OSS-Net D",
            "OSS-Net C small",
            "OSS-Net C small (2 encoder blocks)",
            "OSS-Net C (width 128)",
            "3D residual U-Net",
            "2D residual U-Net",
        ];
        let mut classes = names.map(network).to_vec();
        classes.sort();
        classes.dedup();
        assert_eq!(classes.len(), names.len(), "{classes:?}");
        assert_eq!(network("PyTorch OSS-Net C (recorded)"), network("OSS-Net C"));
        assert_eq!(network("PyTorch 3D U-Net"), network("3D residual U-Net"));
        assert_eq!(network("my network"), network("my network"));
    }
}

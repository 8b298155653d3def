//! What was probably meant by a name that is not known.

/// How alike two names must be, from 0 to 1, for one to be offered for the other.
const ALIKE: f64 = 0.75;

/// The known name that is most like `name`, if one is like it; letters count whatever their case.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let rated = known.into_iter().map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known));
    // Of equals the first: lists begin with what is used most.
    let alike = rated.filter(|(alike, _)| *alike >= ALIKE);
    alike.reduce(|best, next| if next.0 > best.0 { next } else { best }).map(|(_, known)| known)
}

/// The remedy in an error about an unknown name: `did you mean 'unet3d'? known are o-net, unet3d`.
pub fn remedy<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let list = known.clone().into_iter().collect::<Vec<_>>().join(", ");
    match nearest(name, known) {
        Some(meant) => format!("did you mean '{meant}'? known are {list}"),
        None => format!("use one of {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_told_from_other_names() {
        let known = ["o-net", "oss-net-c", "unet3d", "h100"];
        for (slip, meant) in [("unet", "unet3d"), ("ossnet-c", "oss-net-c"), ("UNET-3D", "unet3d"), ("H1000", "h100")] {
            assert_eq!(nearest(slip, known), Some(meant), "{slip}");
        }
        assert_eq!(nearest("unet4d", ["unet3d", "unet2d"]), Some("unet3d"));
        assert_eq!(nearest("transformer", known), None);
        assert_eq!(nearest("", known), None);
        assert!(remedy("unet4d", known).starts_with("did you mean 'unet3d'?"));
        assert_eq!(remedy("x", ["a", "b"]), "use one of a, b");
    }
}

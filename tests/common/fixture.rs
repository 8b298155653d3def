//! Golden files of the official code, and the weights that they were made with.
//!
//! `tests/fixtures/README.md` says what each file holds and how the procedural weights are made. Files are found by
//! pattern, so that another of the same kind dropped in is tested too. Files too large for the repository may lie in
//! a folder `shared/fixtures` beside it or above it; a test that needs one of those says so when it is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ossnet::checkpoint::{Array, Data, StateDict};
use serde_json::{Map, Value};

use super::npz::Npz;

/// The one parameter that is stored and not made by rule.
const FINAL_WEIGHT: &str = "decoder.final_mapping.0.weight";

/// Initial PAU coefficients, the leaky-ReLU fit of orders 5/4 (official `Pade.py`).
#[expect(clippy::excessive_precision, reason = "the digits are those that were published")]
const NUMERATOR: [f32; 6] =
    [3.35583603e-02, 5.05000375e-01, 1.65343934e+00, 2.01001052e+00, 9.31901999e-01, 1.52424124e-01];
#[expect(clippy::excessive_precision, reason = "the digits are those that were published")]
const DENOMINATOR: [f32; 4] = [3.30847488e-06, 3.98021568e+00, 5.12471206e-07, 3.01830109e-01];

/// The folders that golden files may lie in; the repository's own comes first.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = root.ancestors().skip(1).map(|folder| folder.join("shared/fixtures"));
    let mut folders = vec![root.join("tests/fixtures")];
    folders.extend(beside.filter(|folder| folder.is_dir()));
    folders
}

/// The golden files whose names match `pattern`, which has at most one `*`, in the order of their names. Of several
/// files of one name the repository's counts.
///
/// If there is none, prints a line that says so: a test that loops over the files then tests nothing.
pub fn find(pattern: &str) -> Vec<PathBuf> {
    let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
    let matches = |name: &str| match pattern.contains('*') {
        true => name.len() >= pattern.len() - 1 && name.starts_with(start) && name.ends_with(end),
        false => name == pattern,
    };
    let mut found = BTreeMap::new();
    for folder in folders() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if matches(&name) {
                found.entry(name).or_insert(path);
            }
        }
    }
    if found.is_empty() {
        eprintln!("skipped: {pattern} not found in {:?}", folders());
    }
    found.into_values().collect()
}

/// The one golden file `name`, which the repository holds.
///
/// # Panics
/// If it is not there.
pub fn path(name: &str) -> PathBuf {
    find(name).pop().unwrap_or_else(|| panic!("tests/fixtures/{name} is missing"))
}

/// An opened golden file.
pub struct Fixture {
    /// The file's name without its extension.
    pub name: String,
    pub path: PathBuf,
    npz: Npz,
}

impl Fixture {
    pub fn open(path: &Path) -> Fixture {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Fixture { name, path: path.into(), npz: Npz::open(path) }
    }

    /// All golden files that match `pattern`; see [`find`].
    pub fn all(pattern: &str) -> Vec<Fixture> {
        find(pattern).iter().map(|path| Fixture::open(path)).collect()
    }

    /// The array `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.npz.arrays.get(name)
    }

    /// The array `name`.
    pub fn array(&self, name: &str) -> &Array {
        self.get(name).unwrap_or_else(|| panic!("{}: no array {name}", self.name))
    }

    /// The elements of the array `name`, converted to f32.
    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.array(name).to_f32().into_owned()
    }

    /// The elements of the array `name`, which are f64.
    pub fn f64(&self, name: &str) -> &[f64] {
        match self.array(name).data() {
            Data::F64(values) => values,
            other => panic!("{}: {name} is {:?}, not f64", self.name, other.dtype()),
        }
    }

    /// The arrays whose names begin with `prefix`, under what follows it: `with_prefix("grad/")`, `"gsample/"`,
    /// `"gstat/"`, `"buffer/"`, `"buffer_after_train_fwd/"`.
    pub fn with_prefix(&self, prefix: &str) -> BTreeMap<&str, &Array> {
        let arrays = self.npz.arrays.iter();
        arrays.filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array))).collect()
    }

    /// The member `name`, a JSON text.
    pub fn json(&self, name: &str) -> Value {
        let text = self.npz.texts.get(name).unwrap_or_else(|| panic!("{}: no text {name}", self.name));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{}: {name}: {error}", self.name))
    }

    /// The official configuration that the model was built with.
    pub fn config(&self) -> Value {
        self.json("config")
    }

    /// For each tensor, what plain f32 PyTorch achieves: max |g32 − g64| / max(max |g64|, 1e-6 · global max).
    pub fn gradient_error(&self, name: &str) -> f64 {
        let errors = self.json("grad_f32_vs_f64_maxrel");
        errors[name].as_f64().unwrap_or_else(|| panic!("{}: no gradient error of {name}", self.name))
    }

    /// How each parameter is made: its rule by its name, in official order.
    fn param_init(&self) -> Map<String, Value> {
        match self.json("param_init") {
            Value::Object(rules) => rules,
            other => panic!("{}: param_init is {other}", self.name),
        }
    }

    /// Names of the parameters, in official order.
    pub fn parameters(&self) -> Vec<String> {
        self.param_init().into_iter().map(|(name, _)| name).collect()
    }

    /// The state whose parameters have the given shapes: procedural parameters and stored buffers.
    ///
    /// # Panics
    /// If the names are not exactly the fixture's parameters.
    pub fn state_with<'a>(&self, shapes: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> StateDict {
        let shapes: BTreeMap<&str, &[usize]> = shapes.into_iter().collect();
        let rules = self.param_init();
        let unknown = shapes.keys().find(|&&name| !rules.contains_key(name));
        assert!(unknown.is_none(), "{}: the official model has no parameter {unknown:?}", self.name);
        let mut state = StateDict::new();
        for (name, rule) in rules {
            let shape = shapes.get(&*name).unwrap_or_else(|| panic!("{}: no shape of {name}", self.name));
            state.insert(name.clone(), self.parameter(&name, shape, &rule));
        }
        for (name, array) in self.with_prefix("buffer/") {
            state.insert(name, array.clone());
        }
        state
    }

    /// The state, the parameters' shapes taken from the full gradients, which only `tiny_*` files hold.
    pub fn state(&self) -> StateDict {
        self.state_with(self.with_prefix("grad/").into_iter().map(|(name, array)| (name, array.shape())))
    }

    /// One parameter.
    fn parameter(&self, name: &str, shape: &[usize], rule: &Value) -> Array {
        let stored = self.get("final_weight").filter(|_| name == FINAL_WEIGHT);
        let count = shape.iter().product();
        let values = match rule.as_array().map(Vec::as_slice) {
            _ if stored.is_some() => stored.unwrap().to_f32().into_owned(),
            Some([offset, bound]) => fill(name, count, offset.as_f64().unwrap(), bound.as_f64().unwrap()),
            _ if name.ends_with("weight_numerator") => fill_pau(name, &NUMERATOR),
            _ if name.ends_with("weight_denominator") => fill_pau(name, &DENOMINATOR),
            _ => panic!("{}: unknown rule {rule} of {name}", self.name),
        };
        Array::f32(shape, values).unwrap_or_else(|| panic!("{}: {name} does not have the shape {shape:?}", self.name))
    }
}

/// The numbers in [0, 1) that the parameter or probe `name` is made of: element `index` counts in C order.
pub fn uniform(name: &str, index: usize) -> f64 {
    // FNV-1a of the name, then the element's place in SplitMix64's sequence from there.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mut z = hash.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f64 / f64::from(1 << 24)
}

/// `count` elements in offset ± bound.
pub fn fill(name: &str, count: usize, offset: f64, bound: f64) -> Vec<f32> {
    (0..count).map(|index| (offset + (2.0 * uniform(name, index) - 1.0) * bound) as f32).collect()
}

/// The published coefficients, each moved by up to a fifth.
pub fn fill_pau(name: &str, published: &[f32]) -> Vec<f32> {
    let moved =
        |(index, &value): (usize, &f32)| (f64::from(value) * (1.0 + 0.2 * (2.0 * uniform(name, index) - 1.0))) as f32;
    published.iter().enumerate().map(moved).collect()
}

/// The statistics that stand for a gradient too large to store, in the order of `gstat/`: L2 norm, sum, largest
/// magnitude, and the dot product with 2u − 1 of the probe.
pub fn statistics(gradient: &[f32]) -> [f64; 4] {
    let (mut squares, mut sum, mut largest, mut dot) = (0.0, 0.0, 0.0_f64, 0.0);
    for (index, &value) in gradient.iter().enumerate() {
        let value = f64::from(value);
        squares += value * value;
        sum += value;
        largest = largest.max(value.abs());
        dot += value * (2.0 * uniform("probe", index) - 1.0);
    }
    [squares.sqrt(), sum, largest, dot]
}

/// The elements of a gradient that `gsample/` stores: 256 of them, at equal distances.
pub fn sample(gradient: &[f32]) -> Vec<f32> {
    gradient.iter().step_by(gradient.len() / 256).take(256).copied().collect()
}

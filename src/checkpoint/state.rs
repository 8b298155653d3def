//! Named arrays on the host, as files hold them.

use std::borrow::Cow;
use std::collections::HashMap;

use half::{bf16, f16};

// Every file format here is little-endian and is copied without swapping.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints need a little-endian machine");

/// Declares the element types once: the tag, the owned data, and the conversions between them and bytes.
macro_rules! element_types {
    ($($(#[$doc:meta])* $variant:ident($element:ty)),* $(,)?) => {
        /// The type of an array's elements.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Dtype { $($(#[$doc])* $variant),* }

        impl Dtype {
            /// Every element type.
            pub const ALL: &[Dtype] = &[$(Dtype::$variant),*];

            /// Bytes of one element.
            pub const fn size(self) -> usize {
                match self { $(Dtype::$variant => size_of::<$element>()),* }
            }
        }

        /// The elements of an array, in C order.
        #[derive(Debug, Clone)]
        pub enum Data { $($(#[$doc])* $variant(Vec<$element>)),* }

        impl Data {
            /// The type of the elements.
            pub fn dtype(&self) -> Dtype {
                match self { $(Data::$variant(_) => Dtype::$variant),* }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(Data::$variant(values) => values.len()),* }
            }

            /// The elements as little-endian bytes.
            pub fn bytes(&self) -> &[u8] {
                match self { $(Data::$variant(values) => bytemuck::cast_slice(values)),* }
            }

            /// Copies elements of type `dtype` from little-endian bytes. A last, incomplete element is dropped.
            pub fn from_bytes(dtype: Dtype, bytes: &[u8]) -> Data {
                let whole = &bytes[..bytes.len() / dtype.size() * dtype.size()];
                match dtype { $(Dtype::$variant => Data::$variant(bytemuck::pod_collect_to_vec(whole))),* }
            }
        }
    };
}

element_types! {
    /// 64-bit floating point.
    F64(f64),
    /// 32-bit floating point.
    F32(f32),
    /// IEEE half precision.
    F16(f16),
    /// The upper half of a 32-bit floating point number.
    Bf16(bf16),
    /// 64-bit signed integer.
    I64(i64),
    /// 32-bit signed integer.
    I32(i32),
    /// 16-bit signed integer.
    I16(i16),
    /// 8-bit signed integer.
    I8(i8),
    /// 8-bit unsigned integer.
    U8(u8),
    /// Truth values, a byte each: 0 or 1.
    Bool(u8),
}

impl Data {
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Equality bit by bit: −0 differs from 0, and a NaN equals itself.
impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.dtype() == other.dtype() && self.bytes() == other.bytes()
    }
}

impl Eq for Data {}

/// An array: shape and elements in C order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    shape: Vec<usize>,
    data: Data,
}

impl Array {
    /// An array of `data`, or `None` if the shape's product is not the number of elements.
    pub fn new(shape: impl Into<Vec<usize>>, data: Data) -> Option<Array> {
        let shape = shape.into();
        (elements(&shape) == Some(data.len())).then_some(Array { shape, data })
    }

    /// An f32 array, or `None` if the shape's product is not the number of elements.
    pub fn f32(shape: impl Into<Vec<usize>>, values: impl Into<Vec<f32>>) -> Option<Array> {
        Array::new(shape, Data::F32(values.into()))
    }

    /// Length of each axis; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, by value.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.data.dtype()
    }

    /// The elements as f32, converted and rounded to the nearest if they are of another type.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match &self.data {
            Data::F32(values) => Cow::Borrowed(values),
            Data::F64(values) => values.iter().map(|&value| value as f32).collect(),
            Data::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Data::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Data::I64(values) => values.iter().map(|&value| value as f32).collect(),
            Data::I32(values) => values.iter().map(|&value| value as f32).collect(),
            Data::I16(values) => values.iter().map(|&value| f32::from(value)).collect(),
            Data::I8(values) => values.iter().map(|&value| f32::from(value)).collect(),
            Data::U8(values) | Data::Bool(values) => values.iter().map(|&value| f32::from(value)).collect(),
        }
    }

    /// A borrowed view, for writing.
    pub fn view(&self) -> View<'_> {
        View { dtype: self.dtype(), shape: &self.shape, bytes: self.data.bytes() }
    }
}

/// A borrowed array, so that weights go from the engine's memory to a file without a copy.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// A view of `values`, or `None` if the shape's product is not their number.
    pub fn f32(shape: &'a [usize], values: &'a [f32]) -> Option<View<'a>> {
        (elements(shape) == Some(values.len())).then_some(View {
            dtype: Dtype::F32,
            shape,
            bytes: bytemuck::cast_slice(values),
        })
    }
}

/// The product of a shape, unless it overflows.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &length| product.checked_mul(length))
}

/// Arrays by name, in the order of insertion: the state of a model under its official parameter names.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    entries: Vec<(String, Array)>,
    index: HashMap<String, usize>,
}

impl StateDict {
    /// An empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `array` under `name`: at the end, or in the place of the array that was there, which is returned.
    pub fn insert(&mut self, name: impl Into<String>, array: Array) -> Option<Array> {
        let name = name.into();
        if let Some(&place) = self.index.get(&name) {
            return Some(std::mem::replace(&mut self.entries[place].1, array));
        }
        self.index.insert(name.clone(), self.entries.len());
        self.entries.push((name, array));
        None
    }

    /// The array under `name`.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.index.get(name).map(|&place| &self.entries[place].1)
    }

    /// Names and arrays, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Array)> {
        self.entries.iter().map(|(name, array)| (name.as_str(), array))
    }

    /// Names and views, in order: what the writers take.
    pub fn views(&self) -> Vec<(&str, View<'_>)> {
        self.iter().map(|(name, array)| (name, array.view())).collect()
    }

    /// Number of arrays.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no arrays.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl PartialEq for StateDict {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for StateDict {}

impl FromIterator<(String, Array)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, Array)>>(entries: I) -> Self {
        let mut state = StateDict::new();
        for (name, array) in entries {
            state.insert(name, array);
        }
        state
    }
}

impl IntoIterator for StateDict {
    type Item = (String, Array);
    type IntoIter = std::vec::IntoIter<(String, Array)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

//! Parts of tensors: a stretch of elements copied out, or put back.
//!
//! Not ops of the tape but what piecewise ops are made of: rows of `[points, features]` and planes of `[batch, D, H, W, C]`
//! are stretches of memory. One copy in, one copy out; the piece between them stays in the cache.

use std::ops::Range;

use super::par_loops::{by_elements, put_all};
use crate::device::{Backend, Device, LaunchConfig};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::tensor::{Tensor, elements};

/// Elements `range` of `from`, after `before` and in front of further zeros that fill up `shape`.
///
/// # Errors
/// A range outside `from` or longer than `shape`, or no memory.
pub fn take(device: &Device, from: &Tensor, range: Range<usize>, before: usize, shape: &[usize]) -> Result<Tensor> {
    let fits = range.start <= range.end && range.end <= from.len();
    if !fits || elements(shape).is_none_or(|len| before.checked_add(range.len()).is_none_or(|end| end > len)) {
        let problem = format!("elements {range:?} of {:?}, {before} zeros before them, are no {shape:?}", from.shape());
        return Err(Error::shape("take", problem));
    }
    let mut part = Tensor::empty(device, shape, from.dtype(), Role::Transient)?;
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            let from = &from.data()[range];
            let inside = before..before + from.len();
            by_elements(pool, part.data_mut(), |first, piece| {
                let end = first + piece.len();
                let (start, stop) = (inside.start.clamp(first, end), inside.end.clamp(first, end));
                piece[..start - first].fill(0.0);
                piece[stop - first..].fill(0.0);
                if start < stop {
                    piece[start - first..stop - first].copy_from_slice(&from[start - before..stop - before]);
                }
            });
        }
        Backend::Cuda(cuda) => {
            let size = from.dtype().size();
            let address = |tensor: &Tensor, element: usize| tensor.address() + element as u64 * size;
            if range.len() < part.len() {
                cuda.zero(part.address(), part.len() as u64 * size)?;
            }
            let bytes = range.len() as u64 * size;
            cuda.copy(address(&part, before), address(from, range.start), bytes)?;
        }
        Backend::Plan { .. } => {}
    }
    Ok(part)
}

/// Elements `range` of `part` into `into`, from element `at` on: added if `accumulate`, else in place of what is there.
///
/// # Errors
/// A stretch outside either tensor.
pub fn put(
    device: &Device,
    into: &mut Tensor,
    at: usize,
    part: &Tensor,
    range: Range<usize>,
    accumulate: bool,
) -> Result<()> {
    let fits = range.start <= range.end
        && range.end <= part.len()
        && at.checked_add(range.len()).is_some_and(|end| end <= into.len())
        && part.dtype() == into.dtype();
    if !fits {
        let problem = format!("elements {range:?} of {:?} do not fit {:?} at {at}", part.shape(), into.shape());
        return Err(Error::shape("put", problem));
    }
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            let part = &part.data()[range];
            by_elements(pool, &mut into.data_mut()[at..at + part.len()], |first, piece| {
                put_all(piece, &part[first..first + piece.len()], accumulate);
            });
        }
        Backend::Cuda(cuda) if accumulate => {
            let add = cuda.kernel_of("add_in_place", part.dtype()).output_from(into, at).input_from(part, range.start);
            add.value(range.len() as u64).launch(LaunchConfig::cover(range.len()))?;
        }
        Backend::Cuda(cuda) => {
            let size = part.dtype().size();
            let (to, from) = (into.address() + at as u64 * size, part.address() + range.start as u64 * size);
            cuda.copy(to, from, range.len() as u64 * size)?;
        }
        Backend::Plan { .. } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_come_out_between_zeros_and_go_back() {
        // Longer than one piece of work.
        let len = 40_000;
        let device = Device::cpu(2, 1 << 22).unwrap();
        let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let whole = Tensor::from_slice(&device, &[len], Role::Data, &values).unwrap();
        let part = take(&device, &whole, 5..len - 7, 3, &[2, len / 2]).unwrap();
        let expected = [&[0.0; 3], &values[5..len - 7], &[0.0; 9]].concat();
        assert_eq!(part.to_vec().unwrap(), expected);
        let mut copy = take(&device, &whole, 0..len, 0, &[len]).unwrap();
        put(&device, &mut copy, 10, &part, 3..len - 100, true).unwrap();
        put(&device, &mut copy, 0, &whole, 100..105, false).unwrap();
        let mut twin = values.clone();
        (3..len - 100).for_each(|i| twin[10 + i - 3] += expected[i]);
        twin[..5].copy_from_slice(&values[100..105]);
        assert_eq!(copy.to_vec().unwrap(), twin);
    }

    #[test]
    fn stretches_outside_are_errors() {
        let device = Device::cpu(1, 1 << 20).unwrap();
        let mut tensor = Tensor::zeros(&device, &[10], Role::Data).unwrap();
        for (range, before, len) in [(5..11, 0, 20), (5..8, 8, 10), (2..4, usize::MAX, 4)] {
            assert!(take(&device, &tensor, range, before, &[len]).is_err());
        }
        let part = tensor.clone();
        assert!(put(&device, &mut tensor, 8, &part, 0..3, false).is_err());
        assert!(put(&device, &mut tensor, 0, &part, 8..11, true).is_err());
        assert!(put(&device, &mut tensor, usize::MAX, &part, 0..1, true).is_err());
    }
}

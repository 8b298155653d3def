//! Scans packed without loss, a third smaller than xz makes them: each voxel is told by how far it is from what its neighbours
//! foretell, through a binary arithmetic coder whose probabilities learn how rough the scan is there.
//!
//! Values are first replaced by their ranks among those that occur, at most 256. A rank is foretold by the median of three
//! planes through known neighbours, held within the nearest three. The difference is told by whether it reaches 1, 2, 4, … and
//! then by halves; the probability of each answer is the mean of what two contexts learned: how wrong the neighbours were
//! foretold, and how they differ.
//!
//! One walk serves both directions. `build.rs` includes this file to write what the program reads.

/// Bytes before the voxels: a NIfTI-1 header, and four that say that no extension follows.
pub const HEADER: usize = 352;

/// The image, a whole NIfTI-1 file of little-endian `u8` or `i16` voxels, packed; `None` if it is another one, or has more than
/// 256 values.
pub fn encode(image: &[u8]) -> Option<Vec<u8>> {
    let (shape, wide) = form(image)?;
    let voxels = &image[HEADER..];
    if voxels.len() != shape.iter().product::<usize>() << u32::from(wide) {
        return None;
    }
    let values: Vec<i16> = match wide {
        true => voxels.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect(),
        false => voxels.iter().copied().map(i16::from).collect(),
    };
    let mut known = values.clone();
    known.sort_unstable();
    known.dedup();
    let last = u8::try_from(known.len().checked_sub(1)?).ok()?;
    let ranks: Option<Vec<u8>> = values.iter().map(|value| known.binary_search(value).ok()?.try_into().ok()).collect();
    let mut bits = Writer { low: 0, high: u32::MAX, out: Vec::new() };
    let known = known.iter().flat_map(|value| value.to_le_bytes());
    plain(&mut bits, &mut image[..HEADER].iter().copied().chain([last]).chain(known).collect::<Vec<u8>>());
    walk(&mut bits, &mut ranks?, shape);
    bits.out.extend(bits.low.to_be_bytes());
    Some(bits.out)
}

/// The first [`HEADER`] bytes of what [`encode`] packed.
pub fn header(packed: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    plain(&mut Reader::new(packed), &mut header);
    header
}

/// What follows them.
pub fn voxels(packed: &[u8]) -> Option<Vec<u8>> {
    let (shape, wide) = form(&header(packed))?;
    let mut bits = Reader::new(packed);
    // The number of values stands before them.
    let mut first = [0; HEADER + 1];
    plain(&mut bits, &mut first);
    let mut bits = Reader::new(packed);
    let mut all = vec![0; HEADER + 1 + 2 * (usize::from(first[HEADER]) + 1)];
    plain(&mut bits, &mut all);
    let mut ranks = vec![0; shape.iter().product()];
    walk(&mut bits, &mut ranks, shape);
    let known = &all[HEADER + 1..];
    let value = |&rank: &u8| known.chunks_exact(2).nth(rank.into()).map(|two| [two[0], two[1]]);
    let values: Vec<[u8; 2]> = ranks.iter().map(value).collect::<Option<_>>()?;
    Some(if wide { values.concat() } else { values.iter().map(|two| two[0]).collect() })
}

/// The shape of an image, and whether a voxel has two bytes.
fn form(image: &[u8]) -> Option<([usize; 3], bool)> {
    let word = |at: usize| Some(u16::from_le_bytes([*image.get(at)?, *image.get(at + 1)?]));
    let starts = f32::from_le_bytes(image.get(108..112)?.try_into().ok()?);
    let wide = match word(70)? {
        2 => false,
        4 => true,
        _ => return None,
    };
    let whole = image.len() >= HEADER && word(0)? == 348 && word(40)? == 3 && starts == HEADER as f32;
    whole.then_some(([word(42)?.into(), word(44)?.into(), word(46)?.into()], wide))
}

/// Tells bits, each with the probability, in 2¹⁶ths, that it is set.
trait Bits {
    /// Writes `bit` and returns it, or returns the one that is read in its place.
    fn bit(&mut self, probability: u32, bit: bool) -> bool;
}

/// Where the next bit divides the interval of all that may follow.
fn division(low: u32, high: u32, probability: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(probability)) >> 16) as u32
}

struct Writer {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Bits for Writer {
    fn bit(&mut self, probability: u32, bit: bool) -> bool {
        let middle = division(self.low, self.high, probability);
        (self.low, self.high) = if bit { (self.low, middle) } else { (middle + 1, self.high) };
        // What both ends begin with is settled.
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.low >> 24) as u8);
            (self.low, self.high) = (self.low << 8, self.high << 8 | 255);
        }
        bit
    }
}

struct Reader<'a> {
    low: u32,
    high: u32,
    at: u32,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn new(packed: &'a [u8]) -> Self {
        let mut reader = Self { low: 0, high: u32::MAX, at: 0, rest: packed };
        (0..4).for_each(|_| reader.next());
        reader
    }

    /// Takes a byte; behind the last there are zeros.
    fn next(&mut self) {
        let (first, rest) = self.rest.split_first().unwrap_or((&0, &[]));
        (self.at, self.rest) = (self.at << 8 | u32::from(*first), rest);
    }
}

impl Bits for Reader<'_> {
    fn bit(&mut self, probability: u32, _: bool) -> bool {
        let middle = division(self.low, self.high, probability);
        let bit = self.at <= middle;
        (self.low, self.high) = if bit { (self.low, middle) } else { (middle + 1, self.high) };
        while (self.low ^ self.high) >> 24 == 0 {
            self.next();
            (self.low, self.high) = (self.low << 8, self.high << 8 | 255);
        }
        bit
    }
}

/// A bit's probability in 2¹⁶ths, and how often it was seen.
#[derive(Clone, Copy)]
struct Chance(u16, u16);

/// So often seen, a bit moves its probability no less.
const SEEN: usize = 250;

/// How far the nth bit moves its probability, in 2¹⁶ths of what is missing: 1 / (n + 3/2).
const RATES: [i32; SEEN] = {
    let (mut rates, mut n) = ([0; SEEN], 0);
    while n < SEEN {
        rates[n] = (1 << 17) / (2 * n as i32 + 3);
        n += 1;
    }
    rates
};

impl Chance {
    fn learn(&mut self, bit: bool) {
        let missing = if bit { 0xffff } else { 0 } - i32::from(self.0);
        // At most 2/3 of 2¹⁶ each: the product fits.
        self.0 = (i32::from(self.0) + ((missing * (RATES[usize::from(self.1)] >> 2)) >> 14)) as u16;
        self.1 = (self.1 + 1).min(SEEN as u16 - 1);
    }
}

/// What a context knows of a byte: for each number from 1 on, whether the byte is at least that.
type Byte = [Chance; 256];

fn contexts(count: usize) -> Vec<Byte> {
    vec![[Chance(1 << 15, 0); 256]; count]
}

/// Tells a byte by the mean of two contexts: in doubling steps, small ones soonest, and then by halves.
fn byte(bits: &mut impl Bits, one: &mut Byte, two: &mut Byte, value: u8) -> u8 {
    let value = usize::from(value);
    let mut reaches = |least: usize| {
        let (one, two) = (&mut one[least], &mut two[least]);
        let mean = (u32::from(one.0) + u32::from(two.0)) / 2;
        let bit = bits.bit(mean.clamp(32, 0xffdf), value >= least);
        one.learn(bit);
        two.learn(bit);
        bit
    };
    let (mut low, mut high) = (0, 1);
    while high < 256 && reaches(high) {
        (low, high) = (high, 2 * high);
    }
    while high - low > 1 {
        let middle = (low + high) / 2;
        if reaches(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low as u8
}

/// Tells bytes by the one before, and by whether there was one.
fn plain(bits: &mut impl Bits, bytes: &mut [u8]) {
    let (mut one, mut two, mut last) = (contexts(256), contexts(2), 0);
    for value in bytes {
        last = byte(bits, &mut one[usize::from(last)], &mut two[usize::from(last > 0)], *value);
        *value = last;
    }
}

/// Levels of roughness, of each up to 255.
const LEVEL: [u8; 256] = {
    // The most of each level but the last.
    let most = [0, 1, 2, 4, 6, 9, 13, 18, 25, 34, 46, 62, 84, 115, 160];
    let (mut levels, mut roughness) = ([0; 256], 0);
    while roughness < 256 {
        let mut level = 0;
        while level < most.len() && most[level] < roughness {
            level += 1;
        }
        levels[roughness] = level as u8;
        roughness += 1;
    }
    levels
};

fn level(roughness: i32) -> usize {
    LEVEL[roughness.min(255) as usize].into()
}

/// Nine classes of differences.
fn side(difference: i32) -> usize {
    let size = [0, 1, 4, 12].map(|most| usize::from(difference.abs() > most)).iter().sum::<usize>();
    if difference < 0 { 4 - size } else { 4 + size }
}

fn median([a, b, c]: [i32; 3]) -> i32 {
    a.min(b).max(a.max(b).min(c))
}

/// Tells ranks of this shape, the first axis the fastest; those that are read are written into `ranks`.
fn walk(bits: &mut impl Bits, ranks: &mut [u8], [nx, ny, nz]: [usize; 3]) {
    const LEVELS: usize = LEVEL[255] as usize + 1;
    let (mut missed, mut rough) = (contexts(9 * LEVELS), contexts(27 * LEVELS));
    // A layer of zeros lies before each axis, so that every voxel has its neighbours: ranks, and how wrong they were foretold.
    let (row, slice) = (nx + 1, (nx + 1) * (ny + 1));
    let mut told = vec![(0u8, 0u8); slice * (nz + 1)];
    for (line, ranks) in ranks.chunks_exact_mut(nx.max(1)).enumerate() {
        let start = slice * (line / ny + 1) + row * (line % ny + 1) + 1;
        for (at, rank) in (start..).zip(ranks) {
            let of = |back: usize| i32::from(told[at - back].0);
            let [x, y, z, xy, xz, yz] = [1, row, slice, 1 + row, 1 + slice, row + slice].map(of);
            let plane = median([x + y - xy, x + z - xz, y + z - yz]);
            let foretold = plane.clamp(x.min(y).min(z), x.max(y).max(z));
            let differ: i32 = [x - xy, y - xy, x - xz, z - xz, y - yz, z - yz].map(i32::abs).iter().sum();
            let wrong: i32 = [1, row, slice].map(|back| i32::from(told[at - back].1)).iter().sum();
            let equal = usize::from(x == y) + usize::from(x == z || y == z);
            let (near, planes) = (x + y + z - 3 * foretold, 2 * (x + y + z) - xy - xz - yz - 3 * foretold);
            let one = &mut missed[9 * level(2 * wrong + differ / 2) + side(planes)];
            let two = &mut rough[9 * (LEVELS * equal + level(differ)) + side(near)];
            // Differences count modulo 256, above and below in turn, so that small ones are small bytes.
            let signed = i32::from(rank.wrapping_sub(foretold as u8) as i8);
            let folded = byte(bits, one, two, (signed << 1 ^ signed >> 7) as u8);
            let difference = folded >> 1 ^ (folded & 1).wrapping_neg();
            *rank = (foretold as u8).wrapping_add(difference);
            told[at] = (*rank, (difference as i8).unsigned_abs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// A file of this type and shape; its voxels as they lie there.
    fn image(wide: bool, shape: [u16; 3], voxels: &[u8]) -> Vec<u8> {
        let mut image = vec![0; HEADER];
        image[..2].copy_from_slice(&348u16.to_le_bytes());
        image[40] = 3;
        for (axis, size) in shape.into_iter().enumerate() {
            image[42 + 2 * axis..][..2].copy_from_slice(&size.to_le_bytes());
        }
        image[70] = if wide { 4 } else { 2 };
        image[108..112].copy_from_slice(&(HEADER as f32).to_le_bytes());
        [&image, voxels].concat()
    }

    fn assert_packs(image: &[u8]) -> usize {
        let packed = encode(image).unwrap();
        assert!(header(&packed)[..] == image[..HEADER] && voxels(&packed).unwrap() == image[HEADER..]);
        packed.len()
    }

    #[test]
    fn noise_flat_and_extreme_scans_come_back() {
        let mut rng = Rng::new(3);
        let noise: Vec<u8> = (0..5 * 7 * 9).map(|_| rng.next_u32() as u8).collect();
        assert_packs(&image(false, [5, 7, 9], &noise));
        let extremes: Vec<u8> =
            noise.iter().flat_map(|&n| [i16::MIN, -1, i16::MAX][usize::from(n % 3)].to_le_bytes()).collect();
        assert_packs(&image(true, [9, 7, 5], &extremes));
        assert_packs(&image(false, [1, 1, 1], &[200]));
        let flat = assert_packs(&image(true, [64, 64, 64], &[7; 2 << 18]));
        assert!(flat < 400, "{flat} bytes for one value");
    }

    #[test]
    fn what_it_cannot_pack_is_refused() {
        let many: Vec<u8> = (0..257i16).flat_map(i16::to_le_bytes).collect();
        assert!(encode(&image(true, [257, 1, 1], &many)).is_none());
        assert!(encode(&image(true, [256, 1, 1], &many[2..])).is_some());
        assert!(encode(&image(false, [3, 1, 1], &[1, 2])).is_none());
        assert!(encode(&[0; 400]).is_none() && encode(&[]).is_none());
    }
}

//! Writes Python's pickles: dictionaries, lists, texts and numbers, in protocol 4.

/// A pickle that grows. What is written becomes the next value: of a list after [`Pickle::mark`] until
/// [`Pickle::appends`], of a dictionary a key or a value until [`Pickle::end_dict`].
pub(super) struct Pickle {
    bytes: Vec<u8>,
    remembered: u32,
}

impl Pickle {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0x80, 4], remembered: 0 }
    }

    /// Begins a dictionary.
    pub(super) fn dict(&mut self) {
        self.bytes.extend(b"}(");
    }

    /// Ends the dictionary that was begun last.
    pub(super) fn end_dict(&mut self) {
        self.bytes.push(b'u');
    }

    /// An empty list.
    pub(super) fn list(&mut self) {
        self.bytes.push(b']');
    }

    /// What follows belongs to the list just written.
    pub(super) fn mark(&mut self) {
        self.bytes.push(b'(');
    }

    /// Up to here.
    pub(super) fn appends(&mut self) {
        self.bytes.push(b'e');
    }

    /// A text.
    pub(super) fn text(&mut self, text: &str) {
        // Texts are names: far below 2³² bytes.
        self.bytes.push(b'X');
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    /// A number below 2⁶³.
    pub(super) fn number(&mut self, number: u64) {
        match number {
            0..=0xff => self.bytes.extend([b'K', number as u8]),
            0x100..=0x7fff_ffff => {
                self.bytes.push(b'J');
                self.bytes.extend((number as u32).to_le_bytes());
            }
            _ => {
                self.bytes.extend([0x8a, 8]);
                self.bytes.extend(number.to_le_bytes());
            }
        }
    }

    /// A key and its number.
    pub(super) fn pair(&mut self, key: &str, number: u64) {
        self.text(key);
        self.number(number);
    }

    /// Remembers the value just written; where.
    pub(super) fn remember(&mut self) -> u32 {
        self.bytes.push(0x94);
        self.remembered += 1;
        self.remembered - 1
    }

    /// A value that was remembered.
    pub(super) fn recall(&mut self, place: u32) {
        self.bytes.push(b'j');
        self.bytes.extend(place.to_le_bytes());
    }

    /// The file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b'.');
        self.bytes
    }
}

/// Reads what [`Pickle`] writes.
#[cfg(test)]
pub(super) fn read(bytes: &[u8]) -> serde_json::Value {
    use serde_json::{Value, json};
    let (mut stack, mut marks, mut remembered): (Vec<Value>, Vec<usize>, Vec<Value>) = Default::default();
    assert_eq!(bytes[..2], [0x80, 4]);
    let mut at = 2;
    let number = |at: &mut usize, length: usize| {
        *at += length;
        bytes[*at - length..*at].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    loop {
        at += 1;
        match bytes[at - 1] {
            b'.' => break,
            b'}' => stack.push(json!({})),
            b']' => stack.push(json!([])),
            b'(' => marks.push(stack.len()),
            b'K' => stack.push(number(&mut at, 1).into()),
            b'J' => stack.push(number(&mut at, 4).into()),
            0x8a => {
                assert_eq!(number(&mut at, 1), 8);
                stack.push(number(&mut at, 8).into());
            }
            b'X' => {
                let length = number(&mut at, 4) as usize;
                stack.push(std::str::from_utf8(&bytes[at..at + length]).unwrap().into());
                at += length;
            }
            0x94 => remembered.push(stack.last().unwrap().clone()),
            b'j' => stack.push(remembered[number(&mut at, 4) as usize].clone()),
            b'e' => {
                let values = stack.split_off(marks.pop().unwrap());
                stack.last_mut().unwrap().as_array_mut().unwrap().extend(values);
            }
            b'u' => {
                let values = stack.split_off(marks.pop().unwrap());
                let entries = stack.last_mut().unwrap().as_object_mut().unwrap();
                for pair in values.chunks_exact(2) {
                    entries.insert(pair[0].as_str().unwrap().into(), pair[1].clone());
                }
            }
            other => panic!("opcode {other} at {at}"),
        }
    }
    assert!(at == bytes.len() && marks.is_empty() && stack.len() == 1);
    stack.pop().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest opcode that holds a number.
    #[test]
    fn numbers_take_the_bytes_that_they_need() {
        let lengths = [0, 0xff, 0x100, 0x7fff_ffff, 0x8000_0000, 1 << 62].map(|number| {
            let mut pickle = Pickle::new();
            pickle.number(number);
            let bytes = pickle.finish();
            assert_eq!(read(&bytes), number);
            bytes.len() - 3
        });
        assert_eq!(lengths, [2, 2, 5, 5, 10, 10]);
    }
}

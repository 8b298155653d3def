//! The wire format of [protocol buffers](https://protobuf.dev/programming-guides/encoding/), as far as files of other
//! programs are written in it: TensorBoard's events, pprof's profiles. Numbers of fields stay below 16, so that a tag is one
//! byte.

/// A field of wire type 0.
pub fn varint(field: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    number(&mut out, value);
    out
}

/// A field of wire type 1.
#[cfg(feature = "train")]
pub fn double(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

/// A field of wire type 5.
#[cfg(feature = "train")]
pub fn float(field: u8, value: f32) -> Vec<u8> {
    let mut out = vec![field << 3 | 5];
    out.extend(value.to_le_bytes());
    out
}

/// A field of wire type 2: a string or a message.
pub fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    number(&mut out, content.len() as u64);
    out.extend(content);
    out
}

/// A repeated field of varints, packed.
pub fn packed(field: u8, values: &[u64]) -> Vec<u8> {
    let mut content = Vec::new();
    values.iter().for_each(|&value| number(&mut content, value));
    bytes(field, &content)
}

/// Seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's description.
    #[test]
    fn fields_are_those_of_the_description() {
        assert_eq!(varint(1, 150), [0x08, 0x96, 0x01]);
        assert_eq!(bytes(2, b"testing"), [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        assert_eq!(packed(6, &[3, 270, 86942]), [0x32, 0x06, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]);
    }
}

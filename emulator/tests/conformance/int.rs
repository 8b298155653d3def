//! Integer and bitwise instructions, against arithmetic on wide integers.

use super::Class::{Amount, I16, I32, I64, P};
use super::{Case, Class, check, exact};

/// Sign-extends the low `bits`.
fn signed(x: u64, bits: u32) -> i128 {
    i128::from((x << (64 - bits)) as i64 >> (64 - bits))
}

fn unsigned(x: u64, bits: u32) -> i128 {
    i128::from(if bits == 64 { x } else { x & ((1 << bits) - 1) })
}

fn cut(x: i128, bits: u32) -> u64 {
    unsigned(x as u64, bits) as u64
}

/// Cases of one name for the signed and unsigned types of all widths; the function sees whole numbers.
fn typed(out: &mut Vec<Case>, name: &str, sources: usize, f: fn(i128, i128, i128, u32) -> i128) {
    for (class, bits) in [(I16, 16), (I32, 32), (I64, 64)] {
        for (letter, view) in [("s", signed as fn(u64, u32) -> i128), ("u", unsigned)] {
            let op = format!("{name}.{letter}{bits}");
            out.push(exact(&op, class, &vec![class; sources], move |v| {
                let at = |k: usize| view(v.get(k).copied().unwrap_or(0), bits);
                cut(f(at(0), at(1), at(2), bits), bits)
            }));
        }
    }
}

#[test]
fn arithmetic() {
    let mut cases = Vec::new();
    typed(&mut cases, "add", 2, |a, b, _, _| a + b);
    typed(&mut cases, "sub", 2, |a, b, _, _| a - b);
    typed(&mut cases, "mul.lo", 2, |a, b, _, _| a.wrapping_mul(b));
    typed(&mut cases, "mul.hi", 2, |a, b, _, bits| {
        if bits == 64 && a > 0 && b > 0 { ((a as u128 * b as u128) >> 64) as i128 } else { a.wrapping_mul(b) >> bits }
    });
    typed(&mut cases, "mad.lo", 3, |a, b, c, _| a.wrapping_mul(b).wrapping_add(c));
    typed(&mut cases, "div", 2, |a, b, _, _| if b == 0 { -1 } else { a / b });
    typed(&mut cases, "rem", 2, |a, b, _, _| if b == 0 { a } else { a % b });
    typed(&mut cases, "min", 2, |a, b, _, _| a.min(b));
    typed(&mut cases, "max", 2, |a, b, _, _| a.max(b));
    typed(&mut cases, "sad", 3, |a, b, c, _| (a - b).abs() + c);
    cases.retain(|c| !(c.op.starts_with("mad.hi") && c.op.ends_with("16")));
    for (bits, class) in [(16, I16), (32, I32), (64, I64)] {
        cases.push(exact(&format!("neg.s{bits}"), class, &[class], move |v| cut(-signed(v[0], bits), bits)));
        cases.push(exact(&format!("abs.s{bits}"), class, &[class], move |v| cut(signed(v[0], bits).abs(), bits)));
    }
    for (from, to, bits) in [(I16, I32, 16), (I32, I64, 32)] {
        cases.push(exact(&format!("mul.wide.s{bits}"), to, &[from, from], move |v| {
            cut(signed(v[0], bits) * signed(v[1], bits), 2 * bits)
        }));
        cases.push(exact(&format!("mul.wide.u{bits}"), to, &[from, from], move |v| {
            cut(unsigned(v[0], bits) * unsigned(v[1], bits), 2 * bits)
        }));
        cases.push(exact(&format!("mad.wide.s{bits}"), to, &[from, from, to], move |v| {
            cut(signed(v[0], bits) * signed(v[1], bits) + v[2] as i128, 2 * bits)
        }));
        cases.push(exact(&format!("mad.wide.u{bits}"), to, &[from, from, to], move |v| {
            cut(unsigned(v[0], bits) * unsigned(v[1], bits) + v[2] as i128, 2 * bits)
        }));
    }
    cases.push(exact("mad.hi.s32", I32, &[I32, I32, I32], |v| {
        cut(((signed(v[0], 32) * signed(v[1], 32)) >> 32) + v[2] as i128, 32)
    }));
    cases.push(exact("mad.hi.u32", I32, &[I32, I32, I32], |v| {
        cut(((unsigned(v[0], 32) * unsigned(v[1], 32)) >> 32) + v[2] as i128, 32)
    }));
    // The low 24 bits, as the manual says.
    cases.push(exact("mul24.lo.u32", I32, &[I32, I32], |v| ((v[0] & 0xff_ffff) * (v[1] & 0xff_ffff)) & 0xffff_ffff));
    check(cases);
}

#[test]
fn carries() {
    // 128-bit sums and differences of (a, b) and (c, a) by way of the carry.
    let chain = |first: &str, second: &str| format!("{first} %dx, %da, %dc;\n{second} %dx, %db, %da;\n// ");
    let wide = |hi: u64, lo: u64| u128::from(hi) << 64 | u128::from(lo);
    check(vec![
        exact(&chain("add.cc.u64", "addc.u64"), I64, &[I64, I64, I64], move |v| {
            (wide(v[1], v[0]).wrapping_add(wide(v[0], v[2])) >> 64) as u64
        }),
        exact(&chain("sub.cc.u64", "subc.u64"), I64, &[I64, I64, I64], move |v| {
            (wide(v[1], v[0]).wrapping_sub(wide(v[0], v[2])) >> 64) as u64
        }),
        exact("add.cc.u32 %rx, %ra, %rb;\naddc.u32 %rx, %rc, 0;\n//", I32, &[I32, I32, I32], |v| {
            (v[2] + ((v[0] + v[1]) >> 32)) & 0xffff_ffff
        }),
        exact("sub.cc.u32 %rx, %ra, %rb;\nsubc.cc.u32 %rx, %rc, 0;\n//", I32, &[I32, I32, I32], |v| {
            v[2].wrapping_sub(u64::from(v[0] < v[1])) & 0xffff_ffff
        }),
    ]);
}

#[test]
fn bitwise() {
    let mut cases = Vec::new();
    for (bits, class) in [(16, I16), (32, I32), (64, I64)] {
        cases.push(exact(&format!("and.b{bits}"), class, &[class, class], |v| v[0] & v[1]));
        cases.push(exact(&format!("or.b{bits}"), class, &[class, class], |v| v[0] | v[1]));
        cases.push(exact(&format!("xor.b{bits}"), class, &[class, class], |v| v[0] ^ v[1]));
        cases.push(exact(&format!("not.b{bits}"), class, &[class], move |v| cut(!v[0] as i128, bits)));
        cases.push(exact(&format!("cnot.b{bits}"), class, &[class], |v| u64::from(v[0] == 0)));
        cases.push(exact(&format!("shl.b{bits}"), class, &[class, Amount], move |v| {
            if v[1] >= bits.into() { 0 } else { cut((v[0] as i128) << v[1], bits) }
        }));
        cases.push(exact(&format!("shr.u{bits}"), class, &[class, Amount], move |v| {
            if v[1] >= bits.into() { 0 } else { v[0] >> v[1] }
        }));
        cases.push(exact(&format!("shr.s{bits}"), class, &[class, Amount], move |v| {
            cut(signed(v[0], bits) >> v[1], bits)
        }));
        for letter in ['b', 'u', 's'] {
            cases.push(exact(&format!("mov.{letter}{bits}"), class, &[class], |v| v[0]));
        }
    }
    cases.push(exact("mov.pred", P, &[P], |v| v[0]));
    cases.push(exact("and.pred", P, &[P, P], |v| v[0] & v[1]));
    cases.push(exact("or.pred", P, &[P, P], |v| v[0] | v[1]));
    cases.push(exact("xor.pred", P, &[P, P], |v| v[0] ^ v[1]));
    cases.push(exact("not.pred", P, &[P], |v| v[0] ^ 1));
    cases.push(exact("popc.b32", I32, &[I32], |v| v[0].count_ones().into()));
    cases.push(exact("popc.b64", I32, &[I64], |v| v[0].count_ones().into()));
    cases.push(exact("clz.b32", I32, &[I32], |v| (v[0] as u32).leading_zeros().into()));
    cases.push(exact("clz.b64", I32, &[I64], |v| v[0].leading_zeros().into()));
    cases.push(exact("brev.b32", I32, &[I32], |v| (v[0] as u32).reverse_bits().into()));
    cases.push(exact("brev.b64", I64, &[I64], |v| v[0].reverse_bits()));
    let top = |x: u64| x.checked_ilog2().map_or(0xffff_ffff, u64::from);
    cases.push(exact("bfind.u32", I32, &[I32], move |v| top(v[0])));
    cases.push(exact("bfind.u64", I32, &[I64], move |v| top(v[0])));
    cases.push(exact("bfind.s32", I32, &[I32], move |v| top(if v[0] >> 31 != 0 { !v[0] & 0xffff_ffff } else { v[0] })));
    cases.push(exact("bfind.shiftamt.u32", I32, &[I32], move |v| {
        v[0].checked_ilog2().map_or(0xffff_ffff, |k| u64::from(31 - k))
    }));
    for (name, left, wrap) in
        [("l.wrap", true, true), ("l.clamp", true, false), ("r.wrap", false, true), ("r.clamp", false, false)]
    {
        cases.push(exact(&format!("shf.{name}.b32"), I32, &[I32, I32, Amount], move |v| {
            let n = if wrap { v[2] % 32 } else { v[2].min(32) };
            let both = u128::from(v[1]) << 32 | u128::from(v[0]);
            (if left { both << n >> 32 } else { both >> n }) as u64 & 0xffff_ffff
        }));
    }
    check(cases);
}

#[test]
fn fields_and_bytes() {
    // The manual's pseudocode, bit by bit.
    fn extract(x: u64, pos: u64, len: u64, bits: u64, sign: bool) -> u64 {
        let (pos, len) = (pos & 0xff, len & 0xff);
        let fill = if sign && len > 0 { x >> (pos + len - 1).min(bits - 1) & 1 } else { 0 };
        (0..bits).fold(0, |out, k| out | (if k < len && pos + k < bits { x >> (pos + k) & 1 } else { fill }) << k)
    }
    fn insert(x: u64, y: u64, pos: u64, len: u64, bits: u64) -> u64 {
        (0..len & 0xff).filter(|k| pos + k < bits).fold(y, |out, k| out & !(1 << (pos + k)) | (x >> k & 1) << (pos + k))
    }
    let mut cases = vec![
        exact("bfe.u32", I32, &[I32, Amount, Amount], |v| extract(v[0], v[1], v[2], 32, false)),
        exact("bfe.s32", I32, &[I32, Amount, Amount], |v| extract(v[0], v[1], v[2], 32, true)),
        exact("bfe.u64", I64, &[I64, Amount, Amount], |v| extract(v[0], v[1], v[2], 64, false)),
        exact("bfe.s64", I64, &[I64, Amount, Amount], |v| extract(v[0], v[1], v[2], 64, true)),
        exact("prmt.b32", I32, &[I32, I32, I32], |v| {
            let bytes = v[1] << 32 | v[0];
            (0..4).fold(0, |out, k| {
                let s = v[2] >> (4 * k) & 15;
                let byte = bytes >> (8 * (s & 7)) & 255;
                out | (if s & 8 == 0 {
                    byte
                } else if byte & 128 != 0 {
                    255
                } else {
                    0
                }) << (8 * k)
            })
        }),
        exact("dp4a.s32.s32", I32, &[I32, I32, I32], |v| {
            let byte = |x: u64, k: u32| i64::from((x >> (8 * k)) as i8);
            (0..4).map(|k| byte(v[0], k) * byte(v[1], k)).sum::<i64>().wrapping_add(v[2] as i64) as u64 & 0xffff_ffff
        }),
        exact("dp4a.u32.u32", I32, &[I32, I32, I32], |v| {
            ((0..4).map(|k| (v[0] >> (8 * k) & 255) * (v[1] >> (8 * k) & 255)).sum::<u64>() + v[2]) & 0xffff_ffff
        }),
    ];
    for (pos, len) in [(0u64, 8u64), (5, 3), (16, 16), (24, 20), (31, 1), (3, 0)] {
        let tail = format!("{pos}, {len}");
        cases.push(Case { tail, ..exact("bfi.b32", I32, &[I32, I32], move |v| insert(v[0], v[1], pos, len, 32)) });
    }
    cases
        .push(Case { tail: "32, 32".into(), ..exact("bfi.b64", I64, &[I64, I64], |v| insert(v[0], v[1], 32, 32, 64)) });
    for table in [0x80u64, 0xfe, 0x96, 0x1a, 0x00, 0xff, 0xca] {
        cases.push(Case {
            tail: table.to_string(),
            ..exact("lop3.b32", I32, &[I32, I32, I32], move |v| {
                (0..32).fold(0, |out, k| {
                    out | (table >> ((v[0] >> k & 1) << 2 | (v[1] >> k & 1) << 1 | v[2] >> k & 1) & 1) << k
                })
            })
        });
    }
    check(cases);
}

#[test]
fn comparisons_and_selections() {
    let mut cases = Vec::new();
    type Order = fn(i128, i128) -> bool;
    let orders: [(&str, Order); 6] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a != b),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
    ];
    for (class, bits) in [(I16, 16), (I32, 32), (I64, 64)] {
        for (name, holds) in orders {
            cases.push(exact(&format!("setp.{name}.s{bits}"), P, &[class, class], move |v| {
                holds(signed(v[0], bits), signed(v[1], bits)).into()
            }));
            cases.push(exact(&format!("setp.{name}.u{bits}"), P, &[class, class], move |v| {
                holds(unsigned(v[0], bits), unsigned(v[1], bits)).into()
            }));
        }
        let select: fn(&[u64]) -> u64 = |v| if v[2] != 0 { v[0] } else { v[1] };
        for letter in ['b', 'u', 's'] {
            cases.push(exact(&format!("selp.{letter}{bits}"), class, &[class, class, P], select));
        }
        cases.push(exact(&format!("setp.eq.b{bits}"), P, &[class, class], |v| (v[0] == v[1]).into()));
        cases.push(exact(&format!("setp.ne.b{bits}"), P, &[class, class], |v| (v[0] != v[1]).into()));
    }
    for (name, holds) in [("lo", orders[2].1), ("ls", orders[3].1), ("hi", orders[4].1), ("hs", orders[5].1)] {
        cases.push(exact(&format!("setp.{name}.u32"), P, &[I32, I32], move |v| holds(v[0].into(), v[1].into()).into()));
    }
    cases.push(exact("setp.lt.and.s32", P, &[I32, I32, P], |v| u64::from(signed(v[0], 32) < signed(v[1], 32)) & v[2]));
    cases.push(exact("setp.lt.or.s32", P, &[I32, I32, P], |v| u64::from(signed(v[0], 32) < signed(v[1], 32)) | v[2]));
    cases.push(exact("setp.lt.xor.s32", P, &[I32, I32, P], |v| u64::from(signed(v[0], 32) < signed(v[1], 32)) ^ v[2]));
    cases.push(exact("setp.lt.s32 %px|%pb, %ra, %rb;\nand.pred %px, %px, !%pb;\n//", P, &[I32, I32], |v| {
        (signed(v[0], 32) < signed(v[1], 32)).into()
    }));
    cases.push(exact("set.lt.u32.s32", I32, &[I32, I32], |v| {
        if signed(v[0], 32) < signed(v[1], 32) { 0xffff_ffff } else { 0 }
    }));
    cases.push(exact("slct.b32.s32", I32, &[I32, I32, I32], |v| if v[2] >> 31 == 0 { v[0] } else { v[1] }));
    check(cases);
    let _: Class = P;
}

//! Values of a type that a function could return in place of its own.

use syn::{Expr, GenericArgument, PathArguments, Type, TypePath, parse_quote};

/// How deep in `Result<Vec<Option<T>>>` values are looked for.
const DEEPEST: usize = 2;

/// Some values of `of`; none if the type is not understood. Not all need compile.
pub fn of(of: &Type) -> Vec<Expr> {
    values(of, 0)
}

fn values(of: &Type, depth: usize) -> Vec<Expr> {
    if depth > DEEPEST {
        return Vec::new();
    }
    match of {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec![parse_quote!(())],
        Type::Tuple(tuple) => {
            let parts: Vec<Vec<Expr>> = tuple.elems.iter().map(|part| values(part, depth + 1)).collect();
            let most = parts.iter().map(Vec::len).max().unwrap_or(0);
            if parts.iter().any(Vec::is_empty) {
                return Vec::new();
            }
            let nth = |n: usize| -> Expr {
                let parts = parts.iter().map(|part| &part[n.min(part.len() - 1)]);
                parse_quote!((#(#parts),*))
            };
            (0..most).map(nth).collect()
        }
        Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => vec![parse_quote!(""), parse_quote!("xyzzy")],
            Type::Slice(_) => vec![parse_quote!(Vec::leak(Vec::new()))],
            _ => Vec::new(),
        },
        Type::Array(array) => {
            let length = &array.len;
            values(&array.elem, depth + 1).into_iter().map(|value| parse_quote!([#value; #length])).collect()
        }
        Type::Path(path) => of_path(path, depth),
        _ => Vec::new(),
    }
}

fn of_path(path: &TypePath, depth: usize) -> Vec<Expr> {
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    let inner = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(inner) => Some(values(inner, depth + 1)),
            _ => None,
        }),
        _ => None,
    }
    .unwrap_or_default()
    .into_iter();
    let name = &last.ident;
    match name.to_string().as_str() {
        "bool" => vec![parse_quote!(true), parse_quote!(false)],
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => vec![parse_quote!(0), parse_quote!(1)],
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => vec![parse_quote!(0), parse_quote!(1), parse_quote!(-1)],
        "f32" | "f64" => vec![parse_quote!(0.0), parse_quote!(1.0), parse_quote!(-1.0)],
        "String" => vec![parse_quote!(String::new()), parse_quote!("xyzzy".to_string())],
        "Option" => [parse_quote!(None)].into_iter().chain(inner.map(|value| parse_quote!(Some(#value)))).collect(),
        "Result" => inner.map(|value| parse_quote!(Ok(#value))).collect(),
        "Vec" => [parse_quote!(vec![])].into_iter().chain(inner.map(|value| parse_quote!(vec![#value]))).collect(),
        "Box" | "Arc" | "Rc" => inner.map(|value| parse_quote!(#name::new(#value))).collect(),
        "Ordering" => Vec::new(),
        _ => vec![parse_quote!(Default::default())],
    }
}

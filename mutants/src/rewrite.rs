//! Puts mutants into a file, each a branch beside the code as it was.
//!
//! The branch of a mutant holds its operands as they were written, without mutants of their own: one is on at a time, and the
//! sources grow with the depth of expressions only.

use std::collections::HashSet;

use proc_macro2::{Literal, Span};
use quote::{ToTokens, quote};
use serde_json::{Value, json};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, BinOp, Block, Expr, File, Item, Pat, ReturnType, Signature, Stmt, Type, UnOp, parse_quote};

use crate::values;

pub struct Rewriter {
    /// What was put in: number, file, line, column, function and what it changes.
    pub mutants: Vec<Value>,
    skipped: HashSet<usize>,
    last: usize,
    file: String,
    /// The functions around what is visited.
    functions: Vec<String>,
    /// Constant functions around it, in which nothing can be asked.
    constant: usize,
}

impl Rewriter {
    pub fn new(skipped: HashSet<usize>) -> Self {
        Self { mutants: Vec::new(), skipped, last: 0, file: String::new(), functions: Vec::new(), constant: 0 }
    }

    pub fn rewrite(&mut self, name: &str, file: &mut File) {
        self.file = name.into();
        if !is_test(&file.attrs) {
            self.visit_file_mut(file);
        }
    }

    /// A new mutant's number, unless it cannot be asked for here or is to be skipped.
    fn mutant(&mut self, span: Span, change: String) -> Option<Literal> {
        let function = self.functions.last().filter(|_| self.constant == 0)?;
        self.last += 1;
        if self.skipped.contains(&self.last) {
            return None;
        }
        let (line, column) = (span.start().line, span.start().column + 1);
        self.mutants.push(json!({
            "number": self.last, "file": self.file, "line": line, "column": column, "function": function, "change": change,
        }));
        Some(Literal::usize_unsuffixed(self.last))
    }

    fn function(&mut self, signature: &Signature, block: &mut Block) {
        let constant = usize::from(signature.constness.is_some());
        self.constant += constant;
        self.functions.push(signature.ident.to_string());
        visit_mut::visit_block_mut(self, block);
        if signature.unsafety.is_none() && !block.stmts.is_empty() {
            self.bodies(signature, block);
        }
        self.functions.pop();
        self.constant -= constant;
    }

    /// Lets a function return some value of its type before it does anything.
    fn bodies(&mut self, signature: &Signature, block: &mut Block) {
        let values = match &signature.output {
            ReturnType::Default => vec![parse_quote!(())],
            ReturnType::Type(_, of) => values::of(of),
        };
        let mut returns: Vec<Stmt> = Vec::new();
        for value in values {
            let change = format!("replace {} with {}", signature.ident, text(&value));
            if let Some(number) = self.mutant(signature.ident.span(), change) {
                returns.push(parse_quote!(if crate::mutant::on(#number) { return #value; }));
            }
        }
        block.stmts.splice(..0, returns);
    }

    fn binary(&mut self, was: &syn::ExprBinary, changed: &mut Expr) {
        let assigns = assigns(&was.op);
        for operator in alternatives(&was.op) {
            let change = format!("replace {} with {}", text(&was.op), text(&operator));
            let Some(number) = self.mutant(was.op.span(), change) else { continue };
            let (left, right) = (&was.left, &was.right);
            *changed = if assigns {
                parse_quote!(if crate::mutant::on(#number) { #left #operator (#right) } else { #changed })
            } else {
                parse_quote!((if crate::mutant::on(#number) { (#left) #operator (#right) } else { #changed }))
            };
        }
    }
}

impl VisitMut for Rewriter {
    fn visit_item_mut(&mut self, item: &mut Item) {
        match item {
            Item::Fn(function) if is_test(&function.attrs) => {}
            Item::Mod(module) if is_test(&module.attrs) => {}
            Item::Impl(implementation) if is_test(&implementation.attrs) => {}
            Item::Fn(_) | Item::Mod(_) | Item::Impl(_) | Item::Trait(_) => visit_mut::visit_item_mut(self, item),
            _ => {}
        }
    }

    fn visit_item_fn_mut(&mut self, function: &mut syn::ItemFn) {
        self.function(&function.sig, &mut function.block);
    }

    fn visit_impl_item_fn_mut(&mut self, function: &mut syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            self.function(&function.sig, &mut function.block);
        }
    }

    fn visit_trait_item_fn_mut(&mut self, function: &mut syn::TraitItemFn) {
        if let Some(block) = &mut function.default {
            self.function(&function.sig, block);
        }
    }

    // Constants are computed before anything can be asked.
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_trait_item_const_mut(&mut self, _: &mut syn::TraitItemConst) {}
    fn visit_expr_const_mut(&mut self, _: &mut syn::ExprConst) {}
    fn visit_type_mut(&mut self, _: &mut Type) {}
    fn visit_pat_mut(&mut self, _: &mut Pat) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}

    fn visit_expr_repeat_mut(&mut self, repeat: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut repeat.expr);
    }

    fn visit_expr_match_mut(&mut self, matched: &mut syn::ExprMatch) {
        self.visit_expr_mut(&mut matched.expr);
        let catches_all = matched.arms.last().is_some_and(|arm| matches!(arm.pat, Pat::Wild(_)) && arm.guard.is_none());
        let last = matched.arms.len().saturating_sub(1);
        for (n, arm) in matched.arms.iter_mut().enumerate() {
            self.visit_expr_mut(&mut arm.body);
            let (span, pattern) = (arm.pat.span(), text(&arm.pat));
            if let Some((_, guard)) = &mut arm.guard {
                let binds = has_let(guard);
                self.visit_expr_mut(guard);
                if binds {
                    continue;
                }
                if let Some(number) = self.mutant(span, format!("replace the guard of {pattern} with true")) {
                    **guard = parse_quote!((crate::mutant::on(#number) || #guard));
                }
                if let Some(number) = self.mutant(span, format!("replace the guard of {pattern} with false")) {
                    **guard = parse_quote!((!crate::mutant::on(#number) && #guard));
                }
            } else if catches_all
                && n < last
                && let Some(number) = self.mutant(span, format!("delete the arm {pattern}"))
            {
                arm.guard = Some((Default::default(), parse_quote!(!crate::mutant::on(#number))));
            }
        }
    }

    fn visit_expr_mut(&mut self, expression: &mut Expr) {
        let was = expression.clone();
        visit_mut::visit_expr_mut(self, expression);
        match &was {
            Expr::Binary(binary) if !has_let(&was) => self.binary(binary, expression),
            Expr::Unary(unary)
                if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) && !matches!(*unary.expr, Expr::Lit(_)) =>
            {
                if let Some(number) = self.mutant(unary.span(), format!("delete {}", text(&unary.op))) {
                    let operand = &unary.expr;
                    *expression = parse_quote!((if crate::mutant::on(#number) { #operand } else { #expression }));
                }
            }
            _ => {}
        }
    }
}

fn text(tokens: &impl ToTokens) -> String {
    quote!(#tokens).to_string()
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is = |attribute: &Attribute| matches!(text(attribute).replace(' ', "").as_str(), "#[test]" | "#[cfg(test)]");
    attributes.iter().any(is)
}

/// A chain of `let` and conditions belongs to its `if`.
fn has_let(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

fn assigns(operator: &BinOp) -> bool {
    text(operator).ends_with('=') && !matches!(operator, BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Le(_) | BinOp::Ge(_))
}

/// What is put in an operator's place.
fn alternatives(operator: &BinOp) -> Vec<BinOp> {
    let operator = text(operator);
    let assign =
        if operator.len() > 1 && !matches!(operator.as_str(), "==" | "!=" | "<=" | ">=") && operator.ends_with('=') {
            "="
        } else {
            ""
        };
    let others: &[&str] = match operator.strip_suffix(assign).unwrap_or(&operator) {
        "+" => &["-", "*"],
        "-" => &["+", "/"],
        "*" => &["+", "/"],
        "/" => &["%", "*"],
        "%" => &["/", "+"],
        "&&" => &["||"],
        "||" => &["&&"],
        "^" => &["|", "&"],
        "&" => &["|", "^"],
        "|" => &["&", "^"],
        "<<" => &[">>"],
        ">>" => &["<<"],
        "==" => &["!="],
        "!=" => &["=="],
        "<" => &["==", ">", "<="],
        "<=" => &[">"],
        ">" => &["==", "<", ">="],
        ">=" => &["<"],
        _ => &[],
    };
    others.iter().filter_map(|other| syn::parse_str(&format!("{other}{assign}")).ok()).collect()
}

//! `pheon-mutants ROOT LIST.json DROPPED.txt`: rewrites the sources below ROOT so that each change that `cargo mutants --list --json`
//! wrote into LIST.json is behind a switch, and prints the numbers of those for which there is none. A change's number is its place in
//! the list; those in DROPPED.txt, which do not compile, are left out.
//!
//! Of `a < b` becomes `(if on(7) { a <= b } else { a < b })`; of a function's body `{ if on(8) { return 0; } .. }`. Only the last branch has
//! switches within, for one change is made at a time: so the text grows with the depth of an expression, not exponentially. "Mutant
//! schemata": Untch, Offutt and Harrold, "Mutation analysis using mutant schemata", ISSTA 1993.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fs;
use std::path::Path;

use proc_macro2::{LineColumn, Literal};
use serde::Deserialize;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{BinOp, Block, Expr, ExprBinary, ExprMatch, ExprUnary, Pat, UnOp, parse_quote};

#[derive(Deserialize)]
struct Change {
    file: String,
    genre: String,
    replacement: String,
    span: Span,
}

#[derive(Deserialize)]
struct Span {
    start: Place,
}

/// Both from 1.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Hash)]
struct Place {
    line: usize,
    column: usize,
}

/// A change's number, and what it puts there.
type Choice = (usize, String);

#[derive(Default)]
struct Switches {
    wanted: HashMap<(String, Place), Vec<Choice>>,
    made: HashSet<usize>,
}

fn on(number: usize) -> Expr {
    let number = Literal::usize_unsuffixed(number);
    parse_quote!(crate::mutants_switch::on(#number))
}

/// Whether an expression binds names, as the operands of `&&` in a condition may.
fn binds(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(b) if matches!(b.op, BinOp::And(_)) => binds(&b.left) || binds(&b.right),
        _ => false,
    }
}

impl Switches {
    fn take(&mut self, genre: &str, at: LineColumn) -> Vec<Choice> {
        let place = Place { line: at.line, column: at.column + 1 };
        let found = self.wanted.remove(&(genre.to_owned(), place)).unwrap_or_default();
        self.made.extend(found.iter().map(|(number, _)| number));
        found
    }

    fn body(&mut self, block: &mut Block) {
        let Some(first) = block.stmts.first() else { return };
        let found = self.take("FnValue", first.span().start());
        visit_mut::visit_block_mut(self, block);
        for (number, value) in found.into_iter().rev() {
            let value: Expr = syn::parse_str(&value).expect("an expression of cargo-mutants");
            let on = on(number);
            block.stmts.insert(0, parse_quote!(if #on { return #value; }));
        }
    }

    fn binary(&mut self, expr: &mut ExprBinary) -> Option<Expr> {
        if binds(&expr.left) || binds(&expr.right) {
            visit_mut::visit_expr_binary_mut(self, expr);
            return None;
        }
        let found = self.take("BinaryOperator", expr.op.span().start());
        let (left, right) = (expr.left.clone(), expr.right.clone());
        visit_mut::visit_expr_binary_mut(self, expr);
        let mut whole = Expr::Binary(expr.clone());
        for (number, operator) in found.into_iter().rev() {
            let operator: BinOp = syn::parse_str(&operator).expect("an operator of cargo-mutants");
            let on = on(number);
            whole = parse_quote!((if #on { (#left) #operator (#right) } else { #whole }));
        }
        Some(whole)
    }

    fn unary(&mut self, expr: &mut ExprUnary) -> Expr {
        let found = self.take("UnaryOperator", expr.op.span().start());
        let operand = expr.expr.clone();
        visit_mut::visit_expr_unary_mut(self, expr);
        let mut whole = Expr::Unary(expr.clone());
        for (number, _) in found {
            let on = on(number);
            whole = parse_quote!((if #on { #operand } else { #whole }));
        }
        whole
    }

    fn arms(&mut self, expr: &mut ExprMatch) {
        // Without an arm that takes the rest, none can go.
        let takes_all = expr.arms.iter().any(|arm| matches!(arm.pat, Pat::Wild(_)) && arm.guard.is_none());
        let mut found = Vec::new();
        for arm in &expr.arms {
            let goes = match arm.guard {
                None if takes_all => self.take("MatchArm", arm.span().start()),
                _ => Vec::new(),
            };
            let guard = match &arm.guard {
                Some((_, guard)) if !binds(guard) => self.take("MatchArmGuard", guard.span().start()),
                _ => Vec::new(),
            };
            found.push((goes, guard));
        }
        visit_mut::visit_expr_match_mut(self, expr);
        for (arm, (goes, values)) in expr.arms.iter_mut().zip(found) {
            for (number, _) in goes {
                let on = on(number);
                arm.guard = Some((Default::default(), parse_quote!(!#on)));
            }
            let Some((_, guard)) = &mut arm.guard else { continue };
            for (number, value) in values {
                let value: Expr = syn::parse_str(&value).expect("a truth value");
                let (on, old) = (on(number), guard.clone());
                **guard = parse_quote!((if #on { #value } else { #old }));
            }
        }
    }
}

impl VisitMut for Switches {
    /// Patterns have no expressions that could be chosen when the program runs, nor has what is computed before: constants and
    /// lengths of arrays.
    fn visit_pat_mut(&mut self, _: &mut Pat) {}

    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}

    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}

    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}

    fn visit_type_array_mut(&mut self, _: &mut syn::TypeArray) {}

    fn visit_expr_repeat_mut(&mut self, expr: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut expr.expr);
    }

    fn visit_item_fn_mut(&mut self, item: &mut syn::ItemFn) {
        if item.sig.constness.is_none() {
            self.body(&mut item.block);
        }
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut syn::ImplItemFn) {
        if item.sig.constness.is_none() {
            self.body(&mut item.block);
        }
    }

    fn visit_trait_item_fn_mut(&mut self, item: &mut syn::TraitItemFn) {
        if let Some(block) = &mut item.default {
            self.body(block);
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Binary(binary) => {
                if let Some(whole) = self.binary(binary) {
                    *expr = whole;
                }
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_) | UnOp::Neg(_)) => *expr = self.unary(unary),
            Expr::Match(found) => self.arms(found),
            _ => visit_mut::visit_expr_mut(self, expr),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, root, list, dropped] = arguments.as_slice() else { return Err("ROOT LIST.json DROPPED.txt".into()) };
    let list: Vec<Change> = serde_json::from_str(&fs::read_to_string(list)?)?;
    let dropped: HashSet<usize> =
        fs::read_to_string(dropped)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let mut files: HashMap<&str, Switches> = HashMap::new();
    for (number, change) in list.iter().enumerate().filter(|(number, _)| !dropped.contains(number)) {
        let wanted = &mut files.entry(&change.file).or_default().wanted;
        wanted.entry((change.genre.clone(), change.span.start)).or_default().push((number, change.replacement.clone()));
    }
    for (file, switches) in &mut files {
        let path = Path::new(root).join(file);
        let mut tree = syn::parse_file(&fs::read_to_string(&path)?)?;
        switches.visit_file_mut(&mut tree);
        fs::write(path, prettyplease::unparse(&tree))?;
    }
    let is_made = |number: &usize| files.values().any(|switches| switches.made.contains(number));
    for number in (0..list.len()).filter(|number| !dropped.contains(number) && !is_made(number)) {
        println!("{number}");
    }
    Ok(())
}

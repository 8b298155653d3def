//! Builds the syntax tree by recursive descent.

use super::ast::{Entry, Instruction, Module, Operand, Space, Statement, Type, Variable};
use super::lexer::{Kind, Token, tokens};

type Result<T> = std::result::Result<T, String>;

/// Longest text that is read; a module of a hundred kernels has a megabyte.
const MOST_BYTES: usize = 64 << 20;

/// Most braces, brackets or signs within each other: the parser recurses.
const MOST_NESTED: usize = 32;

/// Largest alignment of a variable.
const MOST_ALIGNED: u32 = 1 << 16;

/// Parses a PTX module. Errors are one line and name the line of the text.
pub fn parse(source: &str) -> Result<Module> {
    if source.len() > MOST_BYTES {
        return Err(format!("a text of {} bytes is too long, {MOST_BYTES} are read", source.len()));
    }
    let mut parser = Parser { tokens: tokens(source)?, at: 0, nested: 0 };
    let mut module = Module::default();
    while !parser.done() {
        parser.item(&mut module)?;
    }
    Ok(module)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// Operands that are being read, each inside the one before.
    nested: usize,
}

impl Parser {
    fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|t| &t.kind)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |t| t.line)
    }

    fn error<T>(&self, message: &str) -> Result<T> {
        Err(format!("line {}: {message}", self.line()))
    }

    fn next(&mut self) -> Result<Kind> {
        let kind = self.peek().cloned();
        self.at += 1;
        kind.ok_or_else(|| "the text ends too early".to_string())
    }

    fn is(&self, mark: char) -> bool {
        self.peek() == Some(&Kind::Mark(mark))
    }

    fn accept(&mut self, mark: char) -> bool {
        let yes = self.is(mark);
        self.at += usize::from(yes);
        yes
    }

    fn expect(&mut self, mark: char) -> Result<()> {
        if self.accept(mark) { Ok(()) } else { self.error(&format!("`{mark}` expected")) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Kind::Word(w)) if w == word)
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let yes = self.is_word(word);
        self.at += usize::from(yes);
        yes
    }

    fn word(&mut self) -> Result<String> {
        let line = self.line();
        match self.next()? {
            Kind::Word(w) => Ok(w),
            other => Err(format!("line {line}: a name expected, not {other:?}")),
        }
    }

    fn integer(&mut self) -> Result<u64> {
        let line = self.line();
        match self.next()? {
            Kind::Int(v) => Ok(v),
            other => Err(format!("line {line}: a whole number expected, not {other:?}")),
        }
    }

    /// Skips up to and including the next `;`.
    fn skip_statement(&mut self) -> Result<()> {
        while self.next()? != Kind::Mark(';') {}
        Ok(())
    }

    /// Skips a balanced `{ ... }`.
    fn skip_braces(&mut self) -> Result<()> {
        self.expect('{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                Kind::Mark('{') => depth += 1,
                Kind::Mark('}') => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Skips the rest of the line of the token before.
    fn skip_line(&mut self) {
        let line = self.tokens[self.at - 1].line;
        while !self.done() && self.line() == line {
            self.at += 1;
        }
    }

    fn item(&mut self, module: &mut Module) -> Result<()> {
        let line = self.line();
        let start = self.at;
        match self.word()?.as_str() {
            ".version" => match self.next()? {
                Kind::F64(bits) => {
                    let tenths = (f64::from_bits(bits) * 10.0).round() as u32;
                    module.version = (tenths / 10, tenths % 10);
                }
                _ => return Err(format!("line {line}: .version needs a number such as 8.4")),
            },
            ".target" => {
                module.target = self.word()?;
                self.skip_line();
            }
            ".address_size" => {
                if self.integer()? != 64 {
                    return Err(format!("line {line}: only 64-bit addresses exist here"));
                }
            }
            ".file" | ".loc" => self.skip_line(),
            ".section" => {
                self.word()?;
                self.skip_braces()?;
            }
            ".pragma" | ".alias" => self.skip_statement()?,
            ".visible" | ".weak" | ".common" => {}
            ".extern" if self.is_word(".func") => self.skip_statement()?,
            ".extern" => {}
            // Functions that nothing calls may stand in the text; a call is refused where it is decoded.
            ".func" => {
                while !self.is('{') && !self.is(';') {
                    self.next()?;
                }
                if self.is('{') { self.skip_braces()? } else { self.skip_statement()? }
            }
            ".entry" => {
                let entry = self.entry()?;
                module.entries.push(entry);
            }
            ".global" | ".const" | ".shared" => {
                let external = start > 0 && self.tokens[start - 1].kind == Kind::Word(".extern".into());
                self.at = start;
                let variable = self.variable(external)?;
                self.expect(';')?;
                module.variables.push(variable);
            }
            other => return Err(format!("line {line}: unknown directive `{other}`")),
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<Entry> {
        let name = self.word()?;
        let mut params = Vec::new();
        if self.accept('(') {
            while !self.accept(')') {
                params.push(self.variable(false)?);
                self.accept(',');
            }
        }
        let mut entry = Entry { name, params, required_block: None, max_threads: None, body: Vec::new() };
        while !self.accept('{') {
            let line = self.line();
            match self.word()?.as_str() {
                ".reqntid" => entry.required_block = Some(self.triple()?),
                ".maxntid" => {
                    let sides = self.triple()?;
                    let product = sides.iter().try_fold(1u32, |product, &side| product.checked_mul(side));
                    entry.max_threads = Some(product.ok_or(format!("line {line}: {sides:?} threads are too many"))?);
                }
                ".minnctapersm" | ".maxnreg" | ".maxnctapersm" => {
                    self.integer()?;
                }
                ".noreturn" => {}
                ".pragma" => self.skip_statement()?,
                other => return Err(format!("line {line}: unknown kernel directive `{other}`")),
            }
        }
        let mut depth = 1;
        while depth > 0 {
            match self.statement()? {
                Some(Statement::Open) => {
                    depth += 1;
                    entry.body.push(Statement::Open);
                }
                Some(Statement::Close) => {
                    depth -= 1;
                    if depth > 0 {
                        entry.body.push(Statement::Close);
                    }
                }
                Some(statement) => entry.body.push(statement),
                None => {}
            }
        }
        Ok(entry)
    }

    /// A number of 32 bits.
    fn small(&mut self) -> Result<u32> {
        let (line, value) = (self.line(), self.integer()?);
        u32::try_from(value).map_err(|_| format!("line {line}: {value} is too large here"))
    }

    fn triple(&mut self) -> Result<[u32; 3]> {
        let mut out = [1; 3];
        for (k, v) in out.iter_mut().enumerate() {
            if k > 0 && !self.accept(',') {
                break;
            }
            *v = self.small()?;
        }
        Ok(out)
    }

    /// `.space [.align n] [.v4] .type name[count] [= init]`, without the `;`.
    fn variable(&mut self, external: bool) -> Result<Variable> {
        let line = self.line();
        let space = match self.word()?.as_str() {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            ".param" => Space::Param,
            other => return Err(format!("line {line}: `{other}` is no state space for a variable")),
        };
        let (mut align, mut element, mut vector) = (0, None, 1);
        let name = loop {
            let word = self.word()?;
            match word.as_str() {
                ".align" => {
                    align = self.small()?;
                    if !align.is_power_of_two() || align > MOST_ALIGNED {
                        return self.error("an alignment that is no power of two up to 65536");
                    }
                }
                ".v2" => vector = 2,
                ".v4" => vector = 4,
                // Attributes of a pointer parameter: they promise, they do not change its layout.
                ".ptr" | ".global" | ".const" | ".shared" | ".local" => {}
                ".attribute" => return self.error("variable attributes such as .managed are unknown here"),
                _ if word.starts_with('.') => {
                    element = Some(Type::parse(&word[1..]).ok_or(format!("line {line}: unknown type `{word}`"))?);
                }
                _ => break word,
            }
        };
        let element = element.ok_or(format!("line {line}: variable `{name}` without a type"))?.bytes() * vector;
        let (mut count, mut unsized_array) = (1u64, false);
        while self.accept('[') {
            if self.is(']') {
                unsized_array = true
            } else {
                count = count.saturating_mul(self.integer()?)
            }
            self.expect(']')?;
        }
        let mut init = Vec::new();
        if self.accept('=') {
            self.initialiser(element, &mut init, 0)?;
        }
        let size = if unsized_array { init.len() as u64 } else { count.saturating_mul(u64::from(element)) };
        let size = u32::try_from(size).map_err(|_| format!("line {line}: variable `{name}` is too large"))?;
        // In a parameter list `.align` after `.ptr` speaks of what is pointed to; no scalar is aligned more than itself.
        let align = if space == Space::Param && size == element { element } else { align.max(element.min(8)) };
        Ok(Variable { space, name, size, align, init, external })
    }

    fn initialiser(&mut self, element: u32, out: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > MOST_NESTED || element > 8 {
            return self.error("an initialiser of so many braces or of vectors is unknown here");
        }
        if self.accept('{') {
            while !self.accept('}') {
                self.initialiser(element, out, depth + 1)?;
                self.accept(',');
            }
            return Ok(());
        }
        let bits = match self.operand()? {
            Operand::Int(v) | Operand::F64(v)
                if element == 8 || matches!(self.tokens[self.at - 1].kind, Kind::Int(_)) =>
            {
                v
            }
            Operand::F32(v) => u64::from(v),
            _ => return self.error("an initialiser that is no plain number is unknown here"),
        };
        out.extend_from_slice(&bits.to_le_bytes()[..element as usize]);
        Ok(())
    }

    fn statement(&mut self) -> Result<Option<Statement>> {
        if self.accept('{') {
            return Ok(Some(Statement::Open));
        }
        if self.accept('}') {
            return Ok(Some(Statement::Close));
        }
        if self.accept(';') {
            return Ok(None);
        }
        if self.is('@') {
            return self.instruction().map(Some);
        }
        let start = self.at;
        match self.word()?.as_str() {
            ".reg" => {
                let line = self.line();
                let word = self.word()?;
                let kind = word.strip_prefix('.').and_then(Type::parse);
                let kind = kind.ok_or(format!("line {line}: unknown register type `{word}`"))?;
                let mut names = Vec::new();
                loop {
                    let name = self.word()?;
                    let mut count = None;
                    if self.accept('<') {
                        count = Some(self.small()?);
                        self.expect('>')?;
                    }
                    names.push((name, count));
                    if !self.accept(',') {
                        break;
                    }
                }
                self.expect(';')?;
                Ok(Some(Statement::Registers(kind, names)))
            }
            ".shared" | ".local" => {
                self.at = start;
                let variable = self.variable(false)?;
                self.expect(';')?;
                Ok(Some(Statement::Variable(variable)))
            }
            ".loc" | ".file" => {
                self.skip_line();
                Ok(None)
            }
            ".pragma" => {
                self.skip_statement()?;
                Ok(None)
            }
            name if self.is(':') => {
                let name = name.to_string();
                self.accept(':');
                if self.accept_word(".branchtargets") {
                    let mut targets = Vec::new();
                    while !self.accept(';') {
                        targets.push(self.word()?);
                        self.accept(',');
                    }
                    return Ok(Some(Statement::BranchTargets(name, targets)));
                }
                Ok(Some(Statement::Label(name)))
            }
            ".param" => self.error("a call of a function: calls are unknown here, have the compiler inline them"),
            name if name.starts_with('.') => {
                let message = format!("unknown directive `{name}` in a kernel");
                self.error(&message)
            }
            _ => {
                self.at = start;
                self.instruction().map(Some)
            }
        }
    }

    fn instruction(&mut self) -> Result<Statement> {
        let line = self.line();
        let start = self.at;
        let mut guard = None;
        if self.accept('@') {
            let negated = self.accept('!');
            guard = Some((self.word()?, negated));
        }
        let opcode: Vec<String> = self.word()?.split('.').map(str::to_string).collect();
        let mut operands = Vec::new();
        while !self.accept(';') {
            operands.push(self.operand().map_err(|e| format!("{e} (in `{}`)", opcode.join(".")))?);
            if !self.is(';') {
                self.expect(',')?;
            }
        }
        let text = self.tokens[start..self.at - 1].iter().fold(String::new(), |mut text, token| {
            let word = match &token.kind {
                Kind::Word(w) | Kind::Text(w) => w.clone(),
                Kind::Int(v) => (*v as i64).to_string(),
                Kind::F32(bits) => format!("0f{bits:08X}"),
                Kind::F64(bits) => format!("0d{bits:016X}"),
                Kind::Mark(mark) => mark.to_string(),
            };
            let tight =
                text.is_empty() || "],+|}".contains(&word) || text.ends_with(['[', '@', '!', '+', '|', '{', '-']);
            if !tight {
                text.push(' ');
            }
            text + &word
        });
        Ok(Statement::Instruction(Instruction { guard, opcode, operands, text, line }))
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.nested >= MOST_NESTED {
            return self.error("an operand of so many brackets is unknown here");
        }
        self.nested += 1;
        let operand = self.operand_inside();
        self.nested -= 1;
        operand
    }

    fn operand_inside(&mut self) -> Result<Operand> {
        if self.accept('{') {
            let mut items = Vec::new();
            while !self.accept('}') {
                items.push(self.operand()?);
                self.accept(',');
            }
            return Ok(Operand::Vector(items));
        }
        if self.accept('[') {
            let base = self.operand()?;
            let mut offset = 0i64;
            while !self.accept(']') {
                let plus = self.accept('+');
                let minus = self.accept('-');
                if !plus && !minus {
                    return self.error("an address is a base and an offset; anything else is unknown here");
                }
                let value = self.integer()? as i64;
                offset = offset.wrapping_add(if minus { value.wrapping_neg() } else { value });
            }
            return Ok(Operand::Address(Box::new(base), offset));
        }
        if self.accept('!') {
            return self.word().map(Operand::Not);
        }
        if self.accept('-') {
            return match self.operand()? {
                Operand::Int(v) => Ok(Operand::Int(v.wrapping_neg())),
                Operand::F64(v) => Ok(Operand::F64(v ^ 1 << 63)),
                _ => self.error("a minus sign before something that is no number"),
            };
        }
        let line = self.line();
        match self.next()? {
            Kind::Int(v) => Ok(Operand::Int(v)),
            Kind::F32(bits) => Ok(Operand::F32(bits)),
            Kind::F64(bits) => Ok(Operand::F64(bits)),
            Kind::Word(w) if self.accept('|') => Ok(Operand::Pair(w, self.word()?)),
            Kind::Word(w) if w == "_" => Ok(Operand::Ignored),
            Kind::Word(w) => Ok(Operand::Name(w)),
            other => Err(format!("line {line}: operand expected, not {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = ".version 9.0
        .target sm_80
        .address_size 64
        .extern .shared .align 16 .b8 dyn[];
        .const .align 4 .f32 c[2] = {0f3F800000, 0f40000000};
        .visible .entry k(.param .u64 .ptr .align 1 k_0, .param .align 8 .b8 k_1[12]) .maxntid 128, 1, 1
        {
            .reg .pred %p<2>;
            .reg .b32 %r<3>;
            .loc 1 2 3
            @!%p1 bra $L1;
            { .reg .b16 t; mov.b32 {t, _}, %r1; }
            ld.global.v2.u32 {%r1, %r2}, [%r1+-8];
            $L1: ret;
        }";

    #[test]
    fn a_module_has_its_parts() {
        let m = parse(SMALL).unwrap();
        assert_eq!((m.version, m.target.as_str()), ((9, 0), "sm_80"));
        assert!(m.variables[0].external && m.variables[0].size == 0 && m.variables[0].align == 16);
        assert_eq!(m.variables[1].init, [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
        let k = &m.entries[0];
        assert_eq!(k.max_threads, Some(128));
        assert_eq!((k.params[0].size, k.params[0].align, k.params[1].size, k.params[1].align), (8, 8, 12, 8));
        let texts: Vec<&str> = k
            .body
            .iter()
            .filter_map(|s| match s {
                Statement::Instruction(i) => Some(i.text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(texts, ["@!%p1 bra $L1", "mov.b32 {t, _}, %r1", "ld.global.v2.u32 {%r1, %r2}, [%r1+-8]", "ret"]);
    }

    #[test]
    fn what_it_does_not_know_is_named() {
        let error = parse(".version 9.0\n.target sm_80\n.texref t;").unwrap_err();
        assert_eq!(error, "line 3: unknown directive `.texref`");
    }

    /// What would take any amount of memory, overflow or recurse without end is refused, or costs nothing.
    #[test]
    fn hostile_numbers_and_nests() {
        let kernel = |body: &str| parse(&format!(".version 8.0\n.target sm_80\n.address_size 64\n{body}"));
        for body in [
            ".entry k() .maxntid 70000, 70000, 70000 { ret; }",
            ".entry k() .reqntid 4294967296, 1, 1 { ret; }",
            ".entry k() { .reg .f32 %f<18446744073709551615>; ret; }",
            ".global .b8 x[18446744073709551615][3];",
            ".global .align 3 .b8 x[3];",
            ".global .v4 .b64 x[1] = { 1 };",
        ] {
            assert!(kernel(body).is_err(), "{body}");
        }
        for (open, close) in [("{", "}"), ("[", "]"), ("-", "")] {
            let body = format!(".entry k() {{ mov.u32 %r1, {}1{}; }}", open.repeat(100_000), close.repeat(100_000));
            assert!(kernel(&body).unwrap_err().contains("brackets"), "{open}");
            let body = format!(".global .b8 x[] = {}1{};", open.repeat(100_000), close.repeat(100_000));
            assert!(kernel(&body).is_err(), "{open}");
        }
        assert_eq!(kernel(".entry k() { .reg .f32 %f<4000000000>; ret; }").unwrap().entries.len(), 1);
    }
}

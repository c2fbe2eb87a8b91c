//! Words of a command: `name argument argument option=value flag`.
//!
//! Bytes are written as they are; `\0` is a zero byte, `""` nothing, `x*400` an `x` four hundred times.

use bytes::Bytes;

/// The words of one command that were not taken yet.
pub struct Words<'a> {
    line: &'a str,
    words: std::collections::VecDeque<&'a str>,
}

impl<'a> Words<'a> {
    /// Of a line.
    pub fn of(line: &'a str) -> Self {
        Self { line, words: line.split_whitespace().collect() }
    }

    fn is_option(word: &str) -> bool {
        word.contains('=') && !word.starts_with("http") || word.starts_with('+')
    }

    /// The next argument.
    pub fn next(&mut self) -> &'a str {
        self.optional().unwrap_or_else(|| panic!("{:?} lacks an argument", self.line))
    }

    /// The next argument, if there is one.
    pub fn optional(&mut self) -> Option<&'a str> {
        self.words.pop_front_if(|word| !Self::is_option(word))
    }

    /// The next argument as bytes.
    pub fn bytes(&mut self) -> Bytes {
        bytes(self.next())
    }

    /// The next argument as a number.
    pub fn number<N: std::str::FromStr>(&mut self) -> N {
        number(self.next(), self.line)
    }

    /// `name=value`, a number, or the default.
    pub fn option<N: std::str::FromStr + Default>(&mut self, name: &str) -> N {
        self.text(name).map_or(N::default(), |text| number(text, self.line))
    }

    /// `name=value`.
    pub fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = |word: &&'a str| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        let at = self.words.iter().position(|word| value(word).is_some())?;
        self.words.remove(at).and_then(|word| value(&word))
    }

    /// Whether `+name` is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.words.iter().position(|word| word.strip_prefix('+') == Some(name));
        at.and_then(|at| self.words.remove(at)).is_some()
    }

    /// Nothing may be left.
    pub fn end(self) {
        assert!(self.words.is_empty(), "{:?}: nobody knows {:?}", self.line, self.words);
    }
}

fn number<N: std::str::FromStr>(text: &str, line: &str) -> N {
    text.parse().unwrap_or_else(|_| panic!("{line:?}: {text:?} is no such number"))
}

/// Bytes as a story writes them.
pub fn bytes(word: &str) -> Bytes {
    if word == "\"\"" {
        return Bytes::new();
    }
    if let Some((pattern, times)) = word.split_once('*') {
        return pattern.repeat(number(times, word)).into();
    }
    word.replace("\\0", "\0").into()
}

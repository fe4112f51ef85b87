//! Texts by chance from the files in `grammar`; `texts.txt` says how they are written.
use super::encoding::Encoding;
use integration_tests::history::Dice;
use std::collections::HashMap;

const TEXTS: [&str; 3] =
    [include_str!("grammar/texts.txt"), include_str!("grammar/writes.txt"), include_str!("grammar/chapters.txt")];

#[derive(Debug)]
struct Alternative {
    weight: i32,
    text: &'static str,
}

/// What may be said on a server of one version.
#[derive(Debug)]
pub struct Grammar {
    rules: HashMap<&'static str, Vec<Alternative>>,
}

impl Grammar {
    /// For a server of this version; `wild`: with what makes more suspect than the tables that a text names.
    pub fn new(version: u32, wild: bool) -> Grammar {
        let mut rules: HashMap<_, Vec<_>> = HashMap::new();
        let mut name = "";
        for line in TEXTS.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let Some(text) = line.strip_prefix("  ") else {
                name = line.strip_suffix(':').unwrap_or_else(|| panic!("grammar: {line}"));
                continue;
            };
            if let Some(alternative) = alternative(text, version, wild) {
                rules.entry(name).or_default().push(alternative);
            }
        }
        Grammar { rules }
    }
}

fn alternative(mut text: &'static str, version: u32, wild: bool) -> Option<Alternative> {
    let mut weight = 1;
    while let Some((mark, rest)) = text.split_once(' ') {
        if mark == "@wild" {
            wild.then_some(())?;
        } else if let Some(least) = mark.strip_prefix('@').and_then(|number| number.parse().ok()) {
            (version >= least).then_some(())?;
        } else if let Some(times) = mark.strip_suffix('*').and_then(|number| number.parse().ok()) {
            weight = times;
        } else {
            break;
        }
        text = rest;
    }
    Some(Alternative { weight, text })
}

/// A grammar, an encoding and what decides.
#[derive(Debug)]
pub struct Voice<'a> {
    grammar: &'a Grammar,
    /// The encoding that the session begins with.
    pub encoding: Encoding,
    /// What decides.
    pub dice: Dice,
}

impl<'a> Voice<'a> {
    /// See the module.
    pub fn new(grammar: &'a Grammar, encoding: Encoding, dice: Dice) -> Voice<'a> {
        Voice { grammar, encoding, dice }
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        let last = i32::try_from(items.len()).expect("a short list") - 1;
        items[self.dice.between(0, last) as usize].clone()
    }

    /// A text of this rule.
    pub fn say(&mut self, rule: &str) -> String {
        let mut out = String::new();
        self.expand(rule, &mut out);
        out
    }

    fn expand(&mut self, rule: &str, out: &mut String) {
        let Some(alternatives) = self.grammar.rules.get(rule) else { return self.made(rule, out) };
        let total = alternatives.iter().map(|alternative| alternative.weight).sum();
        let mut left = self.dice.between(1, total);
        let chosen = alternatives.iter().find(|alternative| {
            left -= alternative.weight;
            left <= 0
        });
        let mut text = chosen.expect("weights are above 0").text;
        while let Some((before, rule, after)) = next_rule(text) {
            out.push_str(before);
            self.expand(rule, out);
            text = after;
        }
        out.push_str(text);
    }

    fn made(&mut self, rule: &str, out: &mut String) {
        match rule {
            "empty" => {}
            "space" => out.push(' '),
            "nl" => out.push('\n'),
            "tab" => out.push('\t'),
            "word" => {
                let word = self.pick(&["one", "two", "Three", "a_b", "x"]);
                out.push_str(word);
            }
            "chars" => {
                for _ in 0..self.dice.between(1, 3) {
                    let character = self.pick(self.encoding.alphabet());
                    out.push(character);
                }
            }
            "broken" => {
                let bytes = self.pick(&["\u{e0ff}", "a\u{e0c3}(", "\u{e0a4}", "\u{e081}", "\u{e0e6}\u{e0bc}"]);
                out.push_str(bytes);
            }
            "text" => self.literal(out),
            "long" => self.repeated(1 << 20, out),
            "longish" => {
                let length = self.pick(&[3_000, 8_190, 16_384, 70_000]);
                self.repeated(length, out);
            }
            "wide_list" => {
                let count = self.pick(&[1663, 1664, 1665]);
                out.push_str(&vec!["id"; count].join(", "));
            }
            "rows" => {
                let rows: Vec<_> =
                    (0..self.dice.between(30, 200)).map(|g| format!("({}, {g}, 'many')", 200 + g)).collect();
                out.push_str(&rows.join(", "));
            }
            _ => panic!("grammar: no rule {rule}"),
        }
    }

    fn literal(&mut self, out: &mut String) {
        let (word, chars) = (self.say("word"), self.say("chars"));
        let text = match self.dice.between(1, 12) {
            1..=4 => format!("'{word}'"),
            5..=7 => format!("'{chars} {word}'"),
            8 => format!("E'{chars}\\t\\'{word}'"),
            9 => format!("$x${word}'{chars}$x$"),
            10 => format!("'it''s {chars}'"),
            11 => format!("U&'{word}\\0041'"),
            _ => "''".into(),
        };
        out.push_str(&text);
    }

    fn repeated(&mut self, length: usize, out: &mut String) {
        let unit = if self.dice.percent(50) { "x".into() } else { self.say("chars") };
        out.push('\'');
        out.push_str(&unit.repeat(length / unit.len()));
        out.push('\'');
    }
}

/// `<name>` and what is around it.
fn next_rule(text: &str) -> Option<(&str, &str, &str)> {
    let named = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    text.match_indices('<').find_map(|(at, _)| {
        let (name, after) = text[at + 1..].split_once('>')?;
        named(name).then_some((&text[..at], name, after))
    })
}

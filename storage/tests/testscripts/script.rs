//! The form of a story: blocks of commands, `----`, the answer, an empty line. `#` begins a comment line.
//!
//! Lines that are indented belong to the command above them. A line `once` at the top: only as written, because the answers tell what
//! a restart changes (what lies on disk, what is remembered in memory).

/// A story.
pub struct Script {
    /// Tell it only as written.
    pub once: bool,
    /// In order.
    pub blocks: Vec<Block>,
    tail: String,
}

/// Commands and their answer.
pub struct Block {
    /// Comments and empty lines before it, kept as they are.
    head: String,
    /// What is done.
    pub commands: Commands,
    /// What it answers, line by line.
    pub answer: String,
}

/// Commands with their indented lines.
pub struct Commands(Vec<Command>);

/// A command and the lines indented below it, with their depth.
pub struct Command {
    /// The command.
    pub line: String,
    /// What belongs to it: (leading spaces, text).
    pub below: Vec<(usize, String)>,
}

impl Commands {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Command> {
        self.0.iter()
    }

    /// As in the file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for command in &self.0 {
            text += &format!("{}\n", command.line);
            command.below.iter().for_each(|(depth, line)| text += &format!("{}{line}\n", " ".repeat(*depth)));
        }
        text
    }
}

impl Script {
    /// Reads a story.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self { once: false, blocks: Vec::new(), tail: String::new() };
        let (mut head, mut commands) = (String::new(), Vec::<Command>::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let blank = line.trim().is_empty() || line.starts_with('#') || (line == "once" && script.blocks.is_empty());
            script.once |= line == "once";
            if line == "----" {
                let answer: String = lines.by_ref().take_while(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
                let commands = Commands(std::mem::take(&mut commands));
                script.blocks.push(Block { head: std::mem::take(&mut head), commands, answer });
            } else if blank && commands.is_empty() {
                head += &format!("{line}\n");
            } else if blank {
                return Err(format!("{line:?} stands between commands and their answer"));
            } else if line.starts_with(' ') {
                let below = &mut commands.last_mut().ok_or_else(|| format!("{line:?} has nothing above it"))?.below;
                below.push((line.len() - line.trim_start().len(), line.trim().to_string()));
            } else {
                commands.push(Command { line: line.to_string(), below: Vec::new() });
            }
        }
        if !commands.is_empty() {
            return Err("the last commands have no answer".into());
        }
        script.tail = head;
        Ok(script)
    }

    /// Writes it.
    pub fn text(&self) -> String {
        let blocks: Vec<String> =
            self.blocks.iter().map(|block| format!("{}{}----\n{}", block.head, block.commands.text(), block.answer)).collect();
        format!("{}{}", blocks.join("\n"), self.tail)
    }
}

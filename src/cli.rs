//! The command line of `deltad`, and what each exit code means. Parses; does nothing.

mod bench;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Bus, Config};
pub use bench::{Bench, CacheName, Rival};

/// Exit codes, as the help and the README promise them.
pub mod exit {
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const NO_DAEMON: u8 = 3;
    pub const INTERRUPTED: u8 = 130;
}

#[derive(Debug, Parser)]
#[command(
    name = "deltad",
    version,
    about = "Keeps one language model warm and answers local programs",
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong command line or configuration,\n\
                  3 no daemon answers, 130 interrupted.\n\n\
                  Start with:\n  deltad-quantize convert CHECKPOINT model.gguf --type q4_k_m\n  \
                  deltad serve --model model.gguf\n  deltad ask 'What is a delta rule?'"
)]
pub struct Cli {
    /// The daemon's socket [default: the user's, then the machine's].
    #[arg(long, global = true, env = "DELTAD_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to log: error, warn, info, debug or trace. Prompts are never logged.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "LEVEL")]
    pub log_level: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground.
    Serve(Serve),
    /// Ask one question; the answer streams to standard output.
    #[command(after_help = "Examples:\n  deltad ask 'Name three rivers'\n  \
                            git diff | deltad ask 'Write a commit message for this'\n  \
                            deltad ask --json --temperature 0 'What is 2 plus 2?'\n  \
                            deltad ask --schema order.json 'Tessa ordered 12 kettles' | jq .quantity\n\n\
                            A conversation, kept in a file between commands:\n  \
                            deltad ask --conversation talk.json 'My name is Clara'\n  \
                            deltad ask --conversation talk.json 'What is my name?'\n\n\
                            A tool: the model calls it, you run it, the model uses its result:\n  \
                            deltad ask --conversation talk.json --tools tools.json 'Is it raining in Lyon?'\n  \
                            => get_weather {\"city\": \"Lyon\"}\n  \
                            deltad ask --conversation talk.json --tools tools.json --tool-result rain")]
    Ask(Ask),
    /// Hold a conversation. Ctrl-C stops an answer, Ctrl-D ends; /help lists commands.
    Chat(Chat),
    /// Conversations that the daemon keeps: list, show, make, fork, end.
    #[command(
        subcommand,
        after_help = "Examples:\n  deltad session create talk --system 'Be brief'\n  \
                      deltad ask --session talk 'My name is Clara'\n  \
                      deltad chat --session talk\n\n\
                      A long text, read once; each question to it starts at once and is not kept:\n  \
                      deltad session create manual --from manual.txt\n  \
                      deltad ask --session manual 'How do I reset it?'"
    )]
    Session(Session),
    /// Say whether a daemon answers, and with which model.
    Status(Status),
    /// Say what this machine has, what a model needs, whether it fits and what would make it faster.
    #[command(
        after_help = "Each finding has a verdict (ok, note or BAD) and at most one line of advice.\n\
                            Exit code 1: something is BAD. Nothing is changed; memory's speed is measured,\n\
                            which takes about a second.\n\n\
                            Examples:\n  deltad doctor model.gguf\n  \
                            deltad doctor --json | jq '.findings[] | select(.verdict != \"good\")'"
    )]
    Doctor(Doctor),
    /// Answer in the search of GNOME Shell and KRunner; the bus starts it when they are told to.
    #[command(
        after_help = "Only queries that begin with desktop.word (\"ask\") are questions. It ends\n\
                            when nobody searches; docs/desktop.md has the rest."
    )]
    Desktop(Desktop),
    /// Measure how fast a model is here: prefill and decode, over depths and lanes.
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<Bench>),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  deltad completions bash > \
                            ~/.local/share/bash-completion/completions/deltad")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, deltad.toml(5) too.
    #[command(after_help = "Example:\n  deltad manual ~/.local/share/man && man deltad")]
    Manual {
        /// Where; pages go to man1 and man5 below it, which are made.
        dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Desktop {
    /// Read this file and no other [default: the user's deltad.toml, then /etc/deltad/].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// The GGUF file to serve.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Read this file and no other [default: the user's deltad.toml, then /etc/deltad/].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The D-Bus on which to offer the service.
    #[arg(long)]
    pub bus: Option<BusName>,
    /// Threads on the CPU [default: every core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print the configuration in force, as TOML, and end.
    #[arg(long)]
    pub check_config: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BusName {
    User,
    System,
    None,
}

impl Serve {
    /// The flags over what the file said.
    pub fn apply(&self, socket: Option<&PathBuf>, config: &mut Config) {
        if let Some(path) = &self.model {
            config.model.path = Some(path.clone());
        }
        if let Some(threads) = self.threads {
            config.model.threads = Some(threads.into());
        }
        if let Some(path) = socket {
            config.service.socket = path.clone();
        }
        if let Some(bus) = self.bus {
            config.service.bus = match bus {
                BusName::User => Bus::User,
                BusName::System => Bus::System,
                BusName::None => Bus::None,
            };
        }
    }
}

#[derive(Debug, Args)]
pub struct Ask {
    /// The question. Without it, standard input is the question; with it, standard input that is
    /// piped goes before it as context.
    pub text: Option<String>,
    /// Print the daemon's whole answer as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Send this JSON list of messages before the question.
    #[arg(long, value_name = "FILE", conflicts_with = "conversation")]
    pub messages: Option<PathBuf>,
    /// Go on with the conversation in FILE, and keep the question and its answer there. Made if
    /// there is none; the same JSON list of messages.
    #[arg(long, value_name = "FILE")]
    pub conversation: Option<PathBuf>,
    /// Go on with the session NAME, which the daemon keeps; made if there is none. A question to a
    /// fixed one, such as a text, is not kept.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["conversation", "messages"])]
    pub session: Option<String>,
    /// Answer with JSON that keeps to the JSON schema in FILE.
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Let the model call the tools in FILE, a JSON list in OpenAI's form. Each call is printed on
    /// a line: its name, a space, its arguments as JSON. Nothing is run.
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// What a tool gave that the conversation's last answer called; once for each call, in order.
    #[arg(long, value_name = "TEXT")]
    pub tool_result: Vec<String>,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Debug, Args)]
pub struct Chat {
    /// Go on with the conversation in FILE, and keep each turn there; made if there is none.
    #[arg(long, value_name = "FILE")]
    pub conversation: Option<PathBuf>,
    /// Go on with the session NAME, which the daemon keeps; made if there is none.
    #[arg(long, value_name = "NAME", conflicts_with = "conversation")]
    pub session: Option<String>,
    #[command(flatten)]
    pub talk: Talk,
}

#[derive(Debug, Subcommand)]
pub enum Session {
    /// List the sessions, the one that was used last first.
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show what was said in a session.
    Show {
        /// Its name or id.
        name: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make a session, empty or from a text.
    Create(CreateSession),
    /// End a session; nothing of it stays.
    Delete {
        /// Its name or id.
        name: String,
    },
    /// Make a session that begins with what was said in another.
    Fork {
        /// The other's name or id.
        name: String,
        /// The new one's name.
        new: Option<String>,
        /// Only up to the answer of this id.
        #[arg(long, value_name = "RESPONSE")]
        at: Option<String>,
    },
    /// Write a session to a file, with which it goes on elsewhere: another machine with the same
    /// model, or any program that reads safetensors.
    Export {
        /// Its name or id.
        name: String,
        /// The file; "-" is standard output.
        file: PathBuf,
    },
    /// Make a session of an exported one.
    Import {
        /// The file; "-" is standard input.
        file: PathBuf,
        /// What to call it [default: its own name, where that is free].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Keep a session's words and read them anew: of another model, or where its files are damaged.
    Rebuild {
        /// Its name or id.
        name: String,
    },
    /// Say how long a session is, and how much longer a text would make it.
    Measure {
        /// Its name or id.
        name: String,
        /// The text; "-" is standard input.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Say what the state of a session of so many tokens would take.
    Estimate { tokens: usize },
}

#[derive(Debug, Args)]
pub struct CreateSession {
    /// Its name: letters, digits, "-", "_" and ".".
    pub name: Option<String>,
    /// Read this text once, so that every question to it starts at once; "-" is standard input.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
}

/// How to answer; what is left out is the daemon's choice.
#[derive(Debug, Args)]
pub struct Talk {
    /// The system message.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// 0 always takes the likeliest token.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long)]
    pub top_p: Option<f64>,
    /// The same seed and question give the same answer.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Longest answer, in tokens.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Let the model think before it answers. What it thinks is shown in grey at a terminal.
    #[arg(long, conflicts_with = "no_think")]
    pub think: bool,
    /// Let the model answer at once. Without either flag its template decides.
    #[arg(long)]
    pub no_think: bool,
    /// Print speed figures on standard error after an answer.
    #[arg(long)]
    pub speed: bool,
}

impl Talk {
    /// What was asked of the model's thinking.
    pub fn thinking(&self) -> Option<bool> {
        (self.think || self.no_think).then_some(self.think)
    }
}

#[derive(Debug, Args)]
pub struct Status {
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Wait this long for a daemon to answer.
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// Look again every second, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// The GGUF file to judge [default: the configuration's].
    pub model: Option<PathBuf>,
    /// Read this configuration and no other [default: the user's deltad.toml, then /etc/deltad/].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object: the machine, the model's needs, the findings.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let cli = Cli::try_parse_from([
            "deltad",
            "serve",
            "--model",
            "b.gguf",
            "--socket",
            "/s",
            "--threads",
            "3",
            "--bus",
            "user",
        ]);
        let Ok(Cli {
            socket,
            command: Command::Serve(serve),
            ..
        }) = cli
        else {
            panic!("{cli:?}");
        };
        let mut config = Config::from_toml("[model]\npath = \"a.gguf\"\nthreads = 9\n").unwrap();
        serve.apply(socket.as_ref(), &mut config);
        assert_eq!(config.model.path, Some("b.gguf".into()));
        assert_eq!(config.model.threads, Some(3));
        assert_eq!(config.service.socket, PathBuf::from("/s"));
        assert_eq!(config.service.bus, Bus::User);
    }
}

//! What files call a tensor: its usual name, older ones, and larger tensors that hold it among their rows.

/// Rows `first`, `first + step`, … of a tensor that has `of` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// The first row.
    pub first: u32,
    /// From one row to the next, at least 1.
    pub step: u32,
    /// How many rows the tensor has.
    pub of: u32,
}

impl Rows {
    /// The rows of N parts of these sizes that lie one after another.
    pub fn in_order<const N: usize>(sizes: [u32; N]) -> [Rows; N] {
        let of = sizes.iter().fold(0u32, |sum, &size| sum.saturating_add(size));
        let mut first = 0u32;
        sizes.map(|size| {
            let rows = Rows { first, step: 1, of };
            first = first.saturating_add(size);
            rows
        })
    }

    /// The rows of N parts of one size that take turns: the first row of each, then the second of each.
    pub fn in_turn<const N: usize>(size: u32) -> [Rows; N] {
        let step = N as u32;
        std::array::from_fn(|i| Rows {
            first: i as u32,
            step,
            of: size.saturating_mul(step),
        })
    }
}

/// A name, and the rows where the tensor of this name holds more than what is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    /// The tensor's name.
    pub name: String,
    /// The rows that are meant; `None` for all.
    pub rows: Option<Rows>,
}

impl Spelling {
    /// The sizes of the tensor of this name, where `dims` are the sizes of what is looked for and `axis` counts rows.
    pub fn whole(&self, dims: &[u32], axis: usize) -> Vec<u32> {
        let mut whole = dims.to_vec();
        if let (Some(rows), Some(size)) = (self.rows, whole.get_mut(axis)) {
            *size = rows.of;
        }
        whole
    }
}

impl std::fmt::Display for Spelling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.rows {
            None => write!(f, "{:?}", self.name),
            Some(Rows { of, .. }) => write!(f, "{:?} of {of} rows that hold it", self.name),
        }
    }
}

/// The names under which files hold a tensor, the usual one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<Spelling>);

impl Names {
    /// The usual name.
    pub fn new(name: impl Into<String>) -> Names {
        let name = name.into();
        Names(vec![Spelling { name, rows: None }])
    }

    /// Any of these, of which there is at least one.
    pub fn any(names: &[&str]) -> Names {
        let spelling = |name: &&str| Spelling {
            name: (*name).to_owned(),
            rows: None,
        };
        Names(names.iter().map(spelling).collect())
    }

    /// Another name for the same.
    pub fn or(self, name: impl Into<String>) -> Names {
        self.or_else(name.into(), None)
    }

    /// Rows of a larger tensor.
    pub fn or_rows(self, name: impl Into<String>, rows: Rows) -> Names {
        self.or_else(name.into(), Some(rows))
    }

    fn or_else(mut self, name: String, rows: Option<Rows>) -> Names {
        self.0.push(Spelling { name, rows });
        self
    }

    /// The same with `suffix` after each name.
    pub fn with(&self, suffix: &str) -> Names {
        self.map(|name| format!("{name}{suffix}"))
    }

    /// The same with `block.` before each name.
    pub fn within(&self, block: &str) -> Names {
        self.map(|name| format!("{block}.{name}"))
    }

    fn map(&self, name: impl Fn(&str) -> String) -> Names {
        let spelling = |s: &Spelling| Spelling {
            name: name(&s.name),
            rows: s.rows,
        };
        Names(self.0.iter().map(spelling).collect())
    }

    /// All of them.
    pub fn spellings(&self) -> &[Spelling] {
        &self.0
    }

    /// The usual name.
    pub fn usual(&self) -> &str {
        &self.0[0].name
    }

    /// The usual spelling and the others.
    pub fn split(&self) -> (&Spelling, &[Spelling]) {
        (&self.0[0], &self.0[1..])
    }
}

impl From<&str> for Names {
    fn from(name: &str) -> Names {
        Names::new(name)
    }
}

impl From<String> for Names {
    fn from(name: String) -> Names {
        Names::new(name)
    }
}

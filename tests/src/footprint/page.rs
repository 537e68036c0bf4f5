//! Tables of a page in Markdown, and the numbers in them.

use std::fmt;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The cells of its first line.
    pub head: Vec<String>,
    /// The cells of the others.
    pub rows: Vec<Vec<String>>,
}

/// All tables of a page, in their order.
#[must_use]
pub fn tables(text: &str) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with('|') {
            continue;
        }
        let mut rows = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
            rows.push(cells(line));
        }
        // The line below the first is drawn.
        rows.drain(..rows.len().min(1));
        tables.push(Table { head: cells(line), rows });
    }
    tables
}

/// The cells of a line, without what is around them. `\|` is part of a cell.
fn cells(line: &str) -> Vec<String> {
    const BAR: char = '\u{0}';
    let line = line.trim().replace("\\|", &BAR.to_string());
    let line = line.strip_prefix('|').unwrap_or(&line);
    let line = line.strip_suffix('|').unwrap_or(line);
    line.split('|').map(|cell| cell.trim().replace(BAR, "\\|")).collect()
}

/// What a cell says in octets or instructions: `224 KiB`, `40 M`, `1,234`.
#[must_use]
pub fn number(cell: &str) -> Option<u64> {
    let (number, unit) = cell.trim_matches('*').split_once(' ').unwrap_or((cell, ""));
    let factor = match unit {
        "" => 1.0,
        "KiB" => 1024.0,
        "M" => 1e6,
        _ => return None,
    };
    let number: f64 = number.replace(',', "").parse().ok()?;
    // The cast of what is not a number of octets, or of instructions, would be none either.
    (number.is_sign_positive() && number.is_finite()).then(|| (number * factor).round() as u64)
}

/// Octets with their separators, as tables have them.
#[must_use]
pub fn octets(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        writeln!(f, "{}", line(&self.head))?;
        writeln!(f, "|---{}|", "|--:".repeat(self.head.len().saturating_sub(1)))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(row)))
    }
}

/// The page with another table in place of the one that has this table's first line. None where
/// there is none.
#[must_use]
pub fn replace(text: &str, table: &Table) -> Option<String> {
    let is_head = |line: &str| line.starts_with('|') && cells(line) == table.head;
    let start = text.lines().position(is_head)?;
    let len = text.lines().skip(start).take_while(|line| line.starts_with('|')).count();
    let mut lines: Vec<&str> = text.lines().collect();
    let table = table.to_string();
    lines.splice(start..start + len, table.lines());
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a page's tables are found between other lines, with their cells as they are meant.
    #[test]
    fn tables_are_found() {
        let page = "text\n| a | b |\n|---|--:|\n| 1 | x \\| y |\n\n| c |\n|---|\n";
        let tables = tables(page);
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].head, ["a", "b"]);
        assert_eq!(tables[0].rows, [["1", "x \\| y"]]);
        assert_eq!(tables[1], Table { head: vec!["c".to_owned()], rows: Vec::new() });
    }

    /// Goal: a table takes the place of the one with its first line, and of no other.
    #[test]
    fn a_table_is_replaced() {
        let page = "text\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| c |\n|---|\nend\n";
        let table = Table {
            head: vec!["a".to_owned(), "b".to_owned()],
            rows: vec![vec!["3".to_owned(), octets(1_234_567)]],
        };
        let replaced = replace(page, &table).unwrap();
        let expected = "text\n| a | b |\n|---|--:|\n| 3 | 1,234,567 |\n\n| c |\n|---|\nend\n";
        assert_eq!(replaced, expected);
        assert_eq!(replace(&replaced, &table).unwrap(), replaced);
        assert_eq!(replace("no table\n", &table), None);
        assert_eq!([octets(0), octets(999), octets(1000)], ["0", "999", "1,000"]);
    }

    /// Goal: a number is read with its unit, and what is none is none.
    #[test]
    fn numbers_have_units() {
        for (cell, value) in [
            ("0", Some(0)),
            ("1,234", Some(1234)),
            ("224 KiB", Some(224 * 1024)),
            ("1.5 KiB", Some(1536)),
            ("40 M", Some(40_000_000)),
            ("15.25 M", Some(15_250_000)),
            ("", None),
            ("many", None),
            ("1 GiB", None),
            ("-1", None),
            ("inf", None),
        ] {
            assert_eq!(number(cell), value, "{cell:?}");
        }
    }
}

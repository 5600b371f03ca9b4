//! Percentiles, tables, and the drawing of a tree.

use comfy_table::{CellAlignment, Table, TableComponent, presets};

/// The `p`-th percentile (0..=100, nearest rank) of unsorted samples; 0 when there are none.
pub fn percentile(samples: &[u64], p: u64) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as u64 * p).div_ceil(100).max(1) as usize - 1;
    sorted.get(rank).copied().unwrap_or(0)
}

/// Median and 99th percentile of samples in ns, as µs.
pub fn us(samples: &[u64]) -> serde_json::Value {
    serde_json::json!({"p50": percentile(samples, 50) / 1000, "p99": percentile(samples, 99) / 1000})
}

/// A table whose first column is text and whose others are numbers.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
        table.remove_style(line);
    }
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for i in 1..header.len() {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// One seed in the drawing.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SeedLine {
    /// Level.
    pub level: u8,
    /// Name.
    pub name: String,
    /// Memory that only it holds, KiB.
    pub private_kib: u64,
    /// Memory that it shares, KiB.
    pub shared_kib: u64,
    /// Share of its resident pages that are its parent's very page frames, percent; `None` where the host does not let us see.
    pub shared_with_parent_percent: Option<u64>,
}

/// Draws the tree, root first.
pub fn draw(seeds: &[SeedLine], instances: &str) -> String {
    let mut out = String::new();
    for (i, seed) in seeds.iter().enumerate() {
        let indent = if i == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(i - 1)) };
        let shared = match seed.shared_with_parent_percent {
            Some(percent) if seed.level > 0 => format!(", {percent} % of its pages are its parent's"),
            _ => String::new(),
        };
        out.push_str(&format!(
            "{indent}L{} {:<12} own {:>7} KiB, shared {:>7} KiB{shared}\n",
            seed.level, seed.name, seed.private_kib, seed.shared_kib
        ));
    }
    out.push_str(&format!("{}└─ {instances}\n", "   ".repeat(seeds.len().saturating_sub(1))));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!((percentile(&samples, 50), percentile(&samples, 99)), (50, 99));
        assert_eq!((percentile(&[7], 50), percentile(&[], 99)), (7, 0));
    }
}

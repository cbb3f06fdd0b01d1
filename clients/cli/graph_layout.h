// Where the states of a graph are drawn: one row each, in columns as `git log --graph` has them.
//
//   GraphLayout layout = LayOut(graph, /*fold=*/true);
//   cli.streams.out << GraphText(layout);     // graph_text.h
//   file << GraphSvg(layout);                 // graph_svg.h
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "anabranch/v1/states.pb.h"

namespace anabranch::cli {

struct GraphRow {
  v1::LogEntry entry;  // of a fold: the newest of its states
  // A row with folded > 0 stands for that many states in one line that nothing points to; the
  // oldest has folded_from tokens.
  int64_t folded = 0, folded_from = 0;
  int column = 0;
  bool cut = false;  // it goes on from states that are not in the graph
};

// From a row to that of a parent: down the column `lane`, with bends right below the child and
// right above the parent.
struct GraphEdge {
  int from_row = 0, to_row = 0, lane = 0;
};

struct GraphLayout {
  std::vector<GraphRow> rows;  // children above their parents
  std::vector<GraphEdge> edges;
  int columns = 0;
};

// Equal graphs get equal layouts. With `fold`, three states or more in one line, with nothing that
// points to them, become one row.
GraphLayout LayOut(const v1::GetGraphResponse& graph, bool fold);

// "st-" and 8 digits: enough to tell states apart by eye.
std::string ShortId(const std::string& id);
// "12,345 turn st-12345678 1.2 MiB", or of a fold "4 states from 100 to 900 tokens".
std::string RowText(const GraphRow& row);
// Its refs, and its sessions in parentheses.
std::vector<std::string> RowNames(const GraphRow& row);

}  // namespace anabranch::cli

// Graphs and heat maps, byte for byte: tests/golden/drawings. ANABRANCH_UPDATE_GOLDEN=1 writes them
// anew; look at them before committing.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/graph_layout.h"
#include "clients/cli/graph_svg.h"
#include "clients/cli/graph_text.h"
#include "clients/cli/state_plot.h"

namespace anabranch::cli {
namespace {

void ExpectGolden(const std::string& name, const std::string& drawing) {
  const std::string path = absl::StrCat(ANABRANCH_DRAWINGS, "/", name);
  if (std::getenv("ANABRANCH_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << drawing;
  std::ifstream file(path);
  std::ostringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(drawing, golden.str()) << path;
}

std::string Id(int number) { return absl::StrFormat("st-%08x%032d", number * 0x01234567, 0); }

v1::LogEntry* Add(v1::GetGraphResponse* graph, int id, int64_t tokens, const std::string& kind,
                  const std::vector<int>& bases) {
  v1::LogEntry* entry = graph->add_entries();
  entry->mutable_state()->set_id(Id(id));
  entry->mutable_state()->set_kind(kind);
  entry->mutable_state()->set_token_count(tokens);
  entry->mutable_state()->set_size_bytes(100000 + tokens * 16);
  for (const int base : bases) {
    entry->add_base_ids(Id(base));
    entry->mutable_state()->add_parent_ids(Id(base));
  }
  return entry;
}

// Three contexts that share a beginning, two of them merged, one with a long history.
v1::GetGraphResponse Family() {
  v1::GetGraphResponse graph;
  v1::LogEntry* both = Add(&graph, 90, 9600, "merge", {52, 31});
  both->add_ref_names("both");
  v1::LogEntry* after = Add(&graph, 80, 2100, "turn", {31});
  after->add_session_ids("ben<&\"");
  Add(&graph, 52, 8300, "turn", {51})->add_ref_names("ann");
  Add(&graph, 31, 2000, "turn", {20})->add_ref_names("ben/marks/start");
  Add(&graph, 51, 8192, "grid", {50});
  Add(&graph, 50, 6144, "grid", {49});
  Add(&graph, 49, 4096, "grid", {48});
  Add(&graph, 48, 2048, "grid", {20});
  Add(&graph, 60, 700, "fork", {20})->add_session_ids("cleo");
  Add(&graph, 20, 512, "mark", {10})->add_ref_names("system");
  Add(&graph, 10, 256, "turn", {});
  return graph;
}

TEST(GraphTest, FamiliesAreDrawnInTheTerminal) {
  ExpectGolden("graph.txt", GraphText(LayOut(Family(), /*fold=*/true)));
  ExpectGolden("graph_not_folded.txt", GraphText(LayOut(Family(), /*fold=*/false)));
}

TEST(GraphTest, FamiliesAreDrawnAsAPicture) {
  ExpectGolden("graph.svg", GraphSvg(LayOut(Family(), /*fold=*/true), "States around \"ann\""));
}

TEST(GraphTest, LongHistoriesAreOneRow) {
  v1::GetGraphResponse graph;
  for (int i = 500; i > 0; --i) {
    Add(&graph, i, i * 100, "turn", i > 1 ? std::vector<int>{i - 1} : std::vector<int>());
  }
  const GraphLayout layout = LayOut(graph, /*fold=*/true);
  ASSERT_EQ(layout.rows.size(), 3u);
  EXPECT_EQ(layout.rows[1].folded, 498);
  EXPECT_EQ(layout.columns, 1);
}

TEST(GraphTest, ManyBranchesAndMergesKeepEveryLine) {
  v1::GetGraphResponse graph;
  Add(&graph, 30, 100, "merge", {21, 22, 23, 24});
  Add(&graph, 40, 90, "merge", {24, 21});
  for (int i = 24; i > 20; --i) Add(&graph, i, 50 + i, "turn", {10});
  Add(&graph, 10, 50, "turn", {9});  // 9 is not in the graph
  const GraphLayout layout = LayOut(graph, /*fold=*/true);
  EXPECT_EQ(layout.edges.size(), 10u);
  for (const GraphEdge& edge : layout.edges) {
    EXPECT_LT(edge.from_row, edge.to_row);
    EXPECT_LT(edge.lane, layout.columns);
  }
  ExpectGolden("graph_merges.txt", GraphText(layout));
  ExpectGolden("graph_merges.svg", GraphSvg(layout, "merges"));
}

TEST(GraphTest, NoStatesAreAnEmptyPicture) {
  EXPECT_EQ(GraphText(LayOut({}, true)), "");
  EXPECT_NE(GraphSvg(LayOut({}, true), "none").find("</svg>"), std::string::npos);
}

v1::StateStats Stats() {
  v1::StateStats stats;
  stats.set_state_id(Id(7));
  stats.set_token_count(1234);
  const auto add = [&](int layer, const std::string& kind, std::vector<int64_t> shape, int heads) {
    v1::TensorStats* tensor = stats.add_tensors();
    tensor->set_layer(layer);
    tensor->set_kind(kind);
    tensor->mutable_shape()->Add(shape.begin(), shape.end());
    for (int i = 0; i < heads; ++i) tensor->add_norms(0.5f * (layer + 1) + 0.25f * (i % 7));
    tensor->set_max_abs(3.5f);
    return tensor;
  };
  for (int layer = 0; layer < 3; ++layer) {
    add(layer, "recurrent", {8, 16, 16}, 8);
    add(layer, "window", {128, 3}, 128);
  }
  add(3, "keys", {1234, 2, 16}, 2)->set_nonfinite_count(1);
  add(-1, "logits", {257}, 1);
  return stats;
}

TEST(PlotTest, NormsAreDrawnInTheTerminal) {
  ExpectGolden("norms.txt", PlotText(Stats(), /*color=*/false));
  EXPECT_NE(PlotText(Stats(), /*color=*/true).find("\033[38;2;68;1;84m"), std::string::npos);
}

TEST(PlotTest, NormsAreDrawnAsAPicture) { ExpectGolden("norms.svg", PlotSvg(Stats())); }

TEST(PlotTest, AStateWithoutTensorsIsNoError) {
  EXPECT_NE(PlotText({}, false).find("0 tokens"), std::string::npos);
  EXPECT_NE(PlotSvg({}).find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace anabranch::cli

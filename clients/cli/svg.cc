#include "clients/cli/svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "clients/cli/format.h"

namespace anabranch::cli {

std::string XmlEscape(absl::string_view text) {
  return absl::StrReplaceAll(Printable(text),
                             {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string SvgBegin(int width, int height, absl::string_view title) {
  return absl::StrCat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width, "\" height=\"", height,
      "\" viewBox=\"0 0 ", width, " ", height, "\" role=\"img\">\n<title>", XmlEscape(title),
      "</title>\n<style>\n"
      ".bg{fill:#ffffff}.t{fill:#1f2328}.d{fill:#656d76}.n{fill:#0a3069}\n"
      ".b{fill:#ddf4ff;stroke:#54aeff}.l{fill:none;stroke-width:2}.f{stroke-dasharray:2 4}\n"
      "text{font:12px ui-monospace,Menlo,Consolas,\"DejaVu Sans Mono\",monospace;"
      "white-space:pre}\n"
      "@media (prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#e6edf3}.d{fill:#8d96a0}"
      ".n{fill:#c2e1ff}.b{fill:#12283f;stroke:#388bfd}}\n"
      "</style>\n<rect class=\"bg\" width=\"",
      width, "\" height=\"", height, "\"/>\n");
}

std::string SvgText(int x, int y, absl::string_view css_class, absl::string_view text) {
  return absl::StrCat("<text class=\"", css_class, "\" x=\"", x, "\" y=\"", y, "\">",
                      XmlEscape(text), "</text>\n");
}

std::string HeatColor(double level) {
  constexpr int kStops[][3] = {
      {68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}};
  const double at = std::clamp(level, 0.0, 1.0) * 4;
  const int low = std::min(3, static_cast<int>(at));
  int color[3];
  for (int i = 0; i < 3; ++i) {
    color[i] = std::lround(kStops[low][i] + (at - low) * (kStops[low + 1][i] - kStops[low][i]));
  }
  return absl::StrFormat("#%02x%02x%02x", color[0], color[1], color[2]);
}

}  // namespace anabranch::cli

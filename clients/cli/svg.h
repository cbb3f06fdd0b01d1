// Pieces of SVG drawings that are readable on light and dark pages alike: they bring their own
// background, which follows the reader's colour scheme, and no fonts or scripts from elsewhere.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace anabranch::cli {

inline constexpr double kSvgCharWidth = 7.25;  // of the monospaced 12 px text

// `text` as XML content or as the value of an attribute.
std::string XmlEscape(absl::string_view text);

// The file up to its first shape. Classes: t (text), d (dim text), b (box around a name), n (text
// in it), l (line), f (fold).
std::string SvgBegin(int width, int height, absl::string_view title);
inline std::string SvgEnd() { return "</svg>\n"; }

// Text whose baseline starts at (x, y).
std::string SvgText(int x, int y, absl::string_view css_class, absl::string_view text);

// A colour of the heat scale, dark blue over green to yellow: `level` from 0 to 1.
std::string HeatColor(double level);

}  // namespace anabranch::cli

// The picture of moba-eval recall: for every setting, layers by heads, coloured by the share of attention mass kept.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "tools/moba_eval/recall_table.h"

namespace moba::eval {
namespace {

constexpr int kCell = 30, kRow = 20, kGap = 34, kLine = 16, kLeft = 50, kWidth = 900, kBarPieces = 20, kBarPiece = 12;

// White where everything is kept, deep orange where nothing is: what stands out is what would be lost. The scale is the same in every
// picture, so that two models can be compared.
std::string colour(double share) {
  const double lost = std::clamp(1 - share, 0.0, 1.0);
  const auto mix = [&](int to) { return static_cast<int>(std::lround(255 + (to - 255) * std::pow(lost, 0.6))); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(217), mix(72), mix(15));
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

std::string colour_bar(int x, int y) {
  std::string out = fmt::format("<text x='{}' y='{}' text-anchor='end' fill='#868e96'>kept: 0 %</text>", x - 6, y + 11);
  for (int i = 0; i < kBarPieces; ++i)
    out += fmt::format("<rect x='{}' y='{}' width='{}' height='14' fill='{}'/>", x + i * kBarPiece, y, kBarPiece,
                       colour((i + 0.5) / kBarPieces));
  out += fmt::format("<rect x='{}' y='{}' width='{}' height='14' fill='none' stroke='#dee2e6'/>", x, y, kBarPieces * kBarPiece);
  return out + fmt::format("<text x='{}' y='{}' fill='#868e96'>100 %</text>\n", x + kBarPieces * kBarPiece + 6, y + 11);
}

}  // namespace

std::string recall_picture(const RecallTable& t) {
  const auto layers = static_cast<int>(t.layers.size()), heads = static_cast<int>(t.heads.front().front().size());
  std::vector<std::string> lines;
  std::istringstream text(what_was_looked_at(t) + "* of queries that skip something; the others lose nothing");
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  const int top = 30 + kLine * static_cast<int>(lines.size()) + 44;
  const int panel_width = std::max(kLeft + heads * kCell, 170) + kGap, panel_height = layers * kRow + 70;
  const int columns = std::clamp((kWidth - 20) / panel_width, 1, static_cast<int>(t.settings.size()));
  const int rows = (static_cast<int>(t.settings.size()) + columns - 1) / columns;
  const int width = std::max(columns * panel_width + 20, 640), height = top + rows * panel_height + 10;
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' font-family='system-ui, sans-serif' "
      "font-size='11' fill='#212529'><rect width='100%' height='100%' fill='#ffffff'/><text x='14' y='22' font-size='14' "
      "font-weight='600'>Attention mass that MoBA's blocks keep, by layer and head, in %</text>\n",
      width, height);
  for (size_t i = 0; i < lines.size(); ++i)
    out += fmt::format("<text x='14' y='{}' fill='#868e96'>{}</text>\n", 40 + kLine * static_cast<int>(i), escaped(lines[i]));
  out += colour_bar(80, top - 36);
  for (size_t s = 0; s < t.settings.size(); ++s) {
    const int x0 = 10 + static_cast<int>(s) % columns * panel_width, y0 = top + static_cast<int>(s) / columns * panel_height;
    out += fmt::format(
        "<text x='{0}' y='{1}' font-weight='600'>S {2} K {3}</text><text x='{0}' y='{4}'>keeps {5:.1f} %, reads {6:.1f} % *</text>", x0 + 4,
        y0, t.settings[s].chunk_size, t.settings[s].topk, y0 + 15, 100 * t.totals[s].share(), 100 * t.totals[s].share_read());
    for (int head = 0; head < heads; ++head)
      out += fmt::format("<text x='{}' y='{}' text-anchor='middle' fill='#868e96'>{}</text>", x0 + kLeft + head * kCell + kCell / 2,
                         y0 + 32, std::to_string(head));
    out += fmt::format("<text x='{}' y='{}' text-anchor='end' fill='#868e96'>head</text>", x0 + kLeft - 6, y0 + 32);
    for (int layer = 0; layer < layers; ++layer) {
      const int y = y0 + 38 + layer * kRow;
      out += fmt::format("<text x='{}' y='{}' text-anchor='end' fill='#868e96'>{}</text>", x0 + kLeft - 6, y + 14,
                         (layer == 0 ? "layer " : "") + std::to_string(t.layers[static_cast<size_t>(layer)]));
      for (int head = 0; head < heads; ++head) {
        const double share = t.heads[s][static_cast<size_t>(layer)][static_cast<size_t>(head)].share();
        const int x = x0 + kLeft + head * kCell;
        out += fmt::format("<rect x='{}' y='{}' width='{}' height='{}' fill='{}' stroke='#dee2e6'/>", x, y, kCell - 1, kRow - 1,
                           colour(share));
        out += fmt::format("<text x='{}' y='{}' text-anchor='middle' font-size='10'>{:.0f}</text>", x + kCell / 2, y + 14, 100 * share);
      }
    }
    out += "\n";
  }
  return out + "</svg>\n";
}

}  // namespace moba::eval

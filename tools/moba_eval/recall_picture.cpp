#include "tools/moba_eval/recall_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace moba::eval {
namespace {

constexpr int kCell = 30, kRow = 20, kGap = 34, kTop = 64, kLeft = 50, kWidth = 900;

// White where everything is kept, deep orange at the lowest share shown: what stands out is what would be lost.
std::string colour(double share, double lowest) {
  const double lost = std::clamp((1 - share) / std::max(1 - lowest, 1e-9), 0.0, 1.0);
  const auto mix = [&](int to) { return static_cast<int>(std::lround(255 + (to - 255) * std::pow(lost, 0.8))); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(217), mix(72), mix(15));
}

double lowest_share(const RecallTable& t) {
  double low = 1;
  for (const auto& layers : t.heads)
    for (const auto& heads : layers)
      for (const MassKept& head : heads) low = std::min(low, head.share());
  return low;
}

}  // namespace

std::string recall_picture(const RecallTable& t, int64_t sequence_length) {
  const auto layers = static_cast<int>(t.heads.front().size()), heads = static_cast<int>(t.heads.front().front().size());
  const double lowest = lowest_share(t);
  const int panel_width = std::max(kLeft + heads * kCell, 170) + kGap, panel_height = layers * kRow + 70;
  const int columns = std::clamp((kWidth - 20) / panel_width, 1, static_cast<int>(t.settings.size()));
  const int rows = (static_cast<int>(t.settings.size()) + columns - 1) / columns;
  const int width = std::max(columns * panel_width + 20, 560), height = kTop + rows * panel_height + 10;
  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' font-family='system-ui, sans-serif' "
      "font-size='11' "
      "fill='#212529'><rect width='100%' height='100%' fill='#ffffff'/><text x='14' y='22' font-size='14' font-weight='600'>Attention mass "
      "that "
      "MoBA's blocks keep, by layer and head, in %</text><text x='14' y='40' fill='#868e96'>sequences of {2} tokens; the darker, the more "
      "would be "
      "lost (white: nothing)</text>\n",
      width, height, sequence_length);
  for (size_t s = 0; s < t.settings.size(); ++s) {
    const int x0 = 10 + static_cast<int>(s) % columns * panel_width, y0 = kTop + static_cast<int>(s) / columns * panel_height;
    out += fmt::format(
        "<text x='{0}' y='{1}' font-weight='600'>S {2} K {3}</text><text x='{0}' y='{4}'>keeps {5:.1f} %, reads {6:.1f} %</text>", x0 + 4,
        y0, t.settings[s].chunk_size, t.settings[s].topk, y0 + 15, 100 * t.totals[s].share(), 100 * t.totals[s].share_read());
    for (int head = 0; head < heads; ++head)
      out += fmt::format("<text x='{}' y='{}' text-anchor='middle' fill='#868e96'>{}</text>", x0 + kLeft + head * kCell + kCell / 2,
                         y0 + 32, std::to_string(head));
    out += fmt::format("<text x='{}' y='{}' text-anchor='end' fill='#868e96'>head</text>", x0 + kLeft - 6, y0 + 32);
    for (int layer = 0; layer < layers; ++layer) {
      const int y = y0 + 38 + layer * kRow;
      out += fmt::format("<text x='{}' y='{}' text-anchor='end' fill='#868e96'>{}</text>", x0 + kLeft - 6, y + 14,
                         layer == 0 ? fmt::format("layer {}", layer) : std::to_string(layer));
      for (int head = 0; head < heads; ++head) {
        const double share = t.heads[s][static_cast<size_t>(layer)][static_cast<size_t>(head)].share();
        const int x = x0 + kLeft + head * kCell;
        out += fmt::format("<rect x='{}' y='{}' width='{}' height='{}' fill='{}' stroke='#dee2e6'/>", x, y, kCell - 1, kRow - 1,
                           colour(share, lowest));
        out += fmt::format("<text x='{}' y='{}' text-anchor='middle' font-size='10'>{:.0f}</text>", x + kCell / 2, y + 14, 100 * share);
      }
    }
    out += "\n";
  }
  return out + "</svg>\n";
}

}  // namespace moba::eval

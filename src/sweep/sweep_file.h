// A sweep file: one base recipe, arms that differ from it, seeds, and the margins by which the results will be judged. Read strictly,
// like a recipe: every error at once, each with its place.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/sweep/claim.h"
#include "src/train/yaml_tree.h"

namespace moba::sweep {

struct Override {
  std::string key, value;  // value in YAML's flow style, as it stands after "key=" on a command line
  std::string where;
  std::string argument() const { return key + "=" + value; }
};

struct Arm {
  std::string name, where;
  std::string base;   // recipe file
  std::string group;  // arms of one scaling curve, or of one figure; "" = none
  std::optional<std::string> attention, hybrid_layers;
  std::vector<Override> overrides;  // common ones first, a later one of the same key replaces the earlier
};

// Figures of a paper to show beside ours. They are never tested against: data, size and tokens differ.
struct Published {
  struct Point {
    std::string arm, label;
    double value = 0;
  };
  struct Fit {
    std::string group;
    double a = 0, b = 0;  // L = a * C^b, C in PFLOP/s-days
  };
  std::string source;             // "arXiv ..., figure 5a, read off the figure"
  std::string metric, x_label;    // of the points
  std::vector<Point> points;      // in the figure's order
  std::optional<Point> baseline;  // drawn as a level line
  std::vector<Fit> fits;
};

struct SweepFile {
  std::string file, source;  // path as given, bytes
  std::string name;          // file name without .yaml
  std::vector<Arm> arms;     // listed arms x grid
  std::vector<uint64_t> seeds;
  Margins margins;
  std::optional<Published> published;
  std::string margins_yaml;  // the section as written, for the record made when the first arm starts
};

// `command_line`: section.key=value arguments; those of recipe keys go to every arm, `seeds=[..]` replaces the file's seeds.
// Throws one Error(usage) whose text is every error, a line each.
SweepFile read_sweep(const std::string& file, const std::vector<std::string>& command_line);

// A value as one line of YAML.
std::string flow_yaml(const YamlNode& node);

}  // namespace moba::sweep

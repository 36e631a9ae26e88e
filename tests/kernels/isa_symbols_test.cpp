// A weak symbol (inline function, template instance) exists in every object that uses it and the linker keeps any one copy. A
// copy compiled with AVX flags would then run, and die, on a CPU without them. So objects of instruction-set variants may only
// hold weak symbols whose name says the instruction set.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace moba::test {
namespace {

struct Symbol {
  std::string object, name;
  char type;
};

// Lines of `nm --print-file-name` on an archive read "archive:object:address type name".
std::vector<Symbol> symbols_of(const std::string& archive) {
  std::vector<Symbol> all;
  const std::unique_ptr<FILE, int (*)(FILE*)> nm(popen(("nm -A -C --defined-only '" + archive + "' 2>/dev/null").c_str(), "r"), pclose);
  if (!nm) return all;
  std::string line;
  for (int c = std::fgetc(nm.get()); c != EOF; c = std::fgetc(nm.get())) {
    if (c != '\n') {
      line.push_back(static_cast<char>(c));
      continue;
    }
    const size_t object_end = line.find(".o:"), address_end = line.find(' ', object_end);
    if (object_end != std::string::npos && address_end + 3 < line.size()) {
      const size_t object_begin = line.rfind(':', object_end) + 1;
      all.push_back({line.substr(object_begin, object_end - object_begin), line.substr(address_end + 3), line[address_end + 1]});
    }
    line.clear();
  }
  return all;
}

bool names_an_isa(const std::string& s) { return s.find("avx2") != std::string::npos || s.find("avx512") != std::string::npos; }
bool is_weak(char type) { return std::string("WwVvu").find(type) != std::string::npos; }

TEST(IsaSymbols, VariantObjectsHoldNoSharedWeakSymbols) {
  const auto all = symbols_of(std::string(MOBA_BIN_DIR) + "/../kernels/libmoba_kernels.a");
  size_t variant_symbols = 0;
  for (const Symbol& s : all) {
    if (!names_an_isa(s.object)) continue;
    ++variant_symbols;
    EXPECT_FALSE(is_weak(s.type) && !names_an_isa(s.name)) << s.object << ": weak symbol " << s.name;
  }
  EXPECT_GT(variant_symbols, 50u) << "nm found too little in libmoba_kernels.a; is binutils installed?";
}

}  // namespace
}  // namespace moba::test

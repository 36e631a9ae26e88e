// Names that results may take: nothing that exists is lost but an older result of the same name.
#pragma once
#include <string>
#include <vector>

namespace moba {

// Error when writing `output` would replace something that is no regular file (a device, a pipe, a folder) or one of `inputs`,
// whatever name it goes by.
void check_output_file(const std::string& output, const std::vector<std::string>& inputs = {});

// A name in the folder of `path` that nothing has yet, for a file or folder until it is complete.
std::string unused_name_beside(const std::string& path);

}  // namespace moba

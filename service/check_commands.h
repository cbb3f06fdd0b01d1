// `anabranchd check-model DIR` and `anabranchd check-tokenizer DIR`: compare with the reference
// vectors beside the model and print the result.
#pragma once

#include <string>

namespace anabranch {

// Exit status: 0 if everything is within `tolerance`, 1 if not, 2 if the check could not run.
int RunCheckModelCommand(const std::string& directory, const std::string& dtype,
                         const std::string& state_dtype, const std::string& device,
                         double tolerance);

// Exit status: 0 if all cases are equal, 1 if not, 2 if the check could not run.
int RunCheckTokenizerCommand(const std::string& directory);

}  // namespace anabranch

// CheckTensors: a folder's tensors against a description.
#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/mixer.h"
#include "runtime/weights.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Extra prediction heads, and a table that older writers stored with attention.
bool Ignored(absl::string_view name) {
  return absl::StartsWith(name, "mtp.") || absl::EndsWith(name, "rotary_emb.inv_freq");
}

// Gives each expected tensor that is there under another name its own; marks all such names as
// used.
void ResolveAliases(const ModelDescription& model, const std::vector<ExpectedTensor>& expected,
                    TensorFile& file, absl::flat_hash_set<std::string>& used) {
  for (const TensorAliases& aliases : model.aliases) {
    for (const ExpectedTensor& tensor : expected) {
      absl::string_view rest = tensor.name;
      if (!absl::ConsumePrefix(&rest, aliases.prefix)) continue;
      for (const std::string& other : aliases.others) {
        const std::string stored = absl::StrCat(other, rest);
        if (file.Find(stored) == nullptr) continue;
        file.AddName(tensor.name, stored);  // nothing if the name is taken
        used.insert(stored);
      }
    }
  }
}

bool IsStored(const TensorFile& file, const ModelDescription& model, const std::string& name) {
  if (file.Find(name) != nullptr) return true;
  for (const TensorAliases& aliases : model.aliases) {
    absl::string_view rest = name;
    if (!absl::ConsumePrefix(&rest, aliases.prefix)) continue;
    for (const std::string& other : aliases.others) {
      if (file.Find(absl::StrCat(other, rest)) != nullptr) return true;
    }
  }
  return false;
}

// Whether experts lie in tensors of their own or stacked is seen from the first tensor of either.
void SettleExperts(const TensorFile& file, ModelDescription& model) {
  for (LayerDescription& layer : model.layers) {
    for (ResidualStep& step : layer.steps) {
      for (Branch& branch : step.branches) {
        auto* moe = std::get_if<MoeSpec>(&branch.mixer);
        if (moe == nullptr) continue;
        const std::string first =
            absl::StrCat(branch.prefix, "experts.0.", moe->in_names.front(), ".weight");
        moe->stacked = IsStored(file, model, branch.prefix + moe->stacked_in) ||
                       (moe->stacked && !IsStored(file, model, first));
      }
    }
  }
}

absl::Status CheckOne(const TensorFile& file, const ExpectedTensor& expected) {
  const TensorView* tensor = file.Find(expected.name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", expected.name, "' of shape ",
                                                   ShapeString(expected.shape), " is missing"));
  }
  if (tensor->shape != expected.shape) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", expected.name, "' has shape ",
                                                   ShapeString(tensor->shape), ", expected ",
                                                   ShapeString(expected.shape)));
  }
  if (tensor->dtype == TensorDType::kI32 || tensor->dtype == TensorDType::kI64) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", expected.name, "' has dtype ",
                                                   TensorDTypeName(tensor->dtype),
                                                   ", expected F32, BF16 or F16"));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelDescription& model) {
  std::vector<ExpectedTensor> expected;
  expected.push_back({model.embedding_name, {model.vocab, model.hidden}});
  for (const LayerDescription& layer : model.layers) {
    for (const ResidualStep& step : layer.steps) {
      ListTensors(step, model.hidden, expected);
    }
  }
  expected.push_back({model.final_norm_name, {model.hidden}});
  if (!model.tied_head) expected.push_back({model.head_name, {model.vocab, model.hidden}});
  return expected;
}

absl::Status CheckTensors(TensorFile& file, ModelDescription& model) {
  if (file.Find(model.head_name) == nullptr) model.tied_head = true;
  SettleExperts(file, model);
  const std::vector<ExpectedTensor> expected = ExpectedTensors(model);
  absl::flat_hash_set<std::string> used;
  ResolveAliases(model, expected, file, used);
  for (const ExpectedTensor& tensor : expected) {
    ANABRANCH_RETURN_IF_ERROR(CheckOne(file, tensor));
    used.insert(tensor.name);
  }
  used.insert(model.head_name);  // a tied model may carry a copy
  for (const auto& [name, tensor] : file.tensors()) {
    if (!used.contains(name) && !Ignored(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", name, "' of shape ", ShapeString(tensor.shape),
                       " belongs to no part of a ", model.model_type, " model"));
    }
  }
  return absl::OkStatus();
}

}  // namespace anabranch

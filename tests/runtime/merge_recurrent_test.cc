// The sums against the formulas, element by element, for tensors of every form a layout may have.
#include "runtime/merge_recurrent.h"

#include <cmath>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace anabranch {
namespace {

// A layer of two groups with an ancestor and two inputs. Tensors lie at odd addresses, as they may
// in a payload.
class Layer {
 public:
  Layer(int64_t size, int64_t num_rates, StateDType dtype) {
    layer_.dtype = dtype;
    layer_.decay.groups = 2;
    layer_.decay.size = size;
    layer_.decay.num_rates = num_rates;
    for (int64_t i = 0; i < 2 * num_rates; ++i) rates_.push_back(-Uniform());
    layer_.decay.rates = rates_.data();
    layer_.old_t = {0.5, 0.25};
    layer_.t = {{1.5, 0.75}, {2.5, 1.75}};
    for (std::string& bytes : bytes_) {
      std::vector<float> values(2 * size);
      for (float& value : values) value = Uniform();
      bytes.resize(1 + layer_.BytesOf(2 * size));
      StoreFloats(values.data(), dtype, 2 * size, bytes.data() + 1);
    }
    layer_.old = bytes_[0].data() + 1;
    layer_.in = {bytes_[1].data() + 1, bytes_[2].data() + 1};
    layer_.out = bytes_[3].data() + 1;
  }
  Layer(const Layer&) = delete;

  void Merge(const MergeOptions& options) { MergeRecurrent(options, layer_); }
  // Of the ancestor, an input, or (3) the result.
  std::vector<double> Values(int of) const {
    std::vector<float> values(2 * layer_.decay.size);
    LoadFloats(bytes_[of].data() + 1, layer_.dtype, 2 * layer_.decay.size, values.data());
    return {values.begin(), values.end()};
  }
  // What input k leaves of the ancestor in element i.
  double Transition(size_t k, int64_t i) const {
    const int64_t group = i / layer_.decay.size, at = i % layer_.decay.size;
    const float rate = rates_[group * layer_.num_rates() + at % layer_.num_rates()];
    return std::exp(rate * (layer_.t[k][group] - layer_.old_t[group]));
  }

 private:
  float Uniform() { return std::uniform_real_distribution<float>(0.1f, 1)(random_); }

  std::mt19937 random_{1};
  std::vector<float> rates_;
  std::string bytes_[4];
  RecurrentLayer layer_;
};

TEST(MergeRecurrentTest, EveryElementFollowsTheFormulas) {
  for (const int64_t rates : {1, 3, 8, 21}) {
    for (const int64_t rows : {1, 5, 1100}) {
      for (const StateDType dtype : {StateDType::kFloat32, StateDType::kBFloat16}) {
        Layer layer(rows * rates, rates, dtype);
        const double tolerance = dtype == StateDType::kFloat32 ? 1e-6 : 1e-2;
        const std::vector<double> o = layer.Values(0), a = layer.Values(1), b = layer.Values(2);
        layer.Merge({MergeMethod::kOrdered, MergeNorm::kNone, {2, 0.5}});
        const std::vector<double> ordered = layer.Values(3);
        layer.Merge({MergeMethod::kMean, MergeNorm::kNone, {2, 0.5}});
        const std::vector<double> mean = layer.Values(3);
        for (size_t i = 0; i < o.size(); ++i) {
          const double pa = layer.Transition(0, i), pb = layer.Transition(1, i);
          const double first = pa * o[i] + 2 * (a[i] - pa * o[i]);
          ASSERT_NEAR(ordered[i], pb * first + 0.5 * (b[i] - pb * o[i]), tolerance) << i;
          ASSERT_NEAR(mean[i], (2 * a[i] + 0.5 * b[i]) / 2.5, tolerance) << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace anabranch

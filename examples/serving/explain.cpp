// Prediction and relevance in C++, with ONNX Runtime alone (a release of it from its makers; ORT_HOME is its folder):
//
//     g++ -std=c++17 -O2 explain.cpp -I$ORT_HOME/include -L$ORT_HOME/lib -Wl,-rpath,$ORT_HOME/lib -lonnxruntime -o explain
//     ./explain EXPLAINER.onnx INPUT.f32 1x3x224x224 CLASS RELEVANCE.f32
//
// Tensors are files of float32, the last axis first in memory: numpy's `x.tofile(path)` and `np.fromfile(path, "float32")`.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

std::vector<float> read_floats(const std::string& path, size_t count) {
  std::vector<float> values(count);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(float)));
  if (!file || file.peek() != std::ifstream::traits_type::eof())
    throw std::runtime_error(path + ": not " + std::to_string(count) + " numbers of float32");
  return values;
}

std::vector<int64_t> sizes_of(const std::string& shape) {
  std::vector<int64_t> sizes;
  std::stringstream parts(shape);
  for (std::string size; std::getline(parts, size, 'x');) sizes.push_back(std::stoll(size));
  return sizes;
}

void explain(const std::string& path, const std::string& input_path, const std::string& shape, int64_t target,
             const std::string& relevance_path) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING);
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(path.begin(), path.end()).c_str(), Ort::SessionOptions());
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  const auto sizes = sizes_of(shape);
  const auto count = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  auto x = read_floats(input_path, static_cast<size_t>(count));
  const int64_t batch = sizes.at(0);
  std::vector<int64_t> classes(static_cast<size_t>(batch), target);

  Ort::AllocatorWithDefaultOptions allocator;
  const auto first = session.GetInputNameAllocated(0, allocator);
  const char* inputs[] = {first.get(), "target"};
  const char* outputs[] = {"output", "relevance"};
  Ort::Value given[] = {Ort::Value::CreateTensor<float>(memory, x.data(), x.size(), sizes.data(), sizes.size()),
                        Ort::Value::CreateTensor<int64_t>(memory, classes.data(), classes.size(), &batch, 1)};
  const auto found = session.Run(Ort::RunOptions{nullptr}, inputs, given, 2, outputs, 2);

  const float* scores = found[0].GetTensorData<float>();
  const auto class_count = found[0].GetTensorTypeAndShapeInfo().GetShape().at(1);
  if (target < 0 || target >= class_count) throw std::out_of_range("classes end at " + std::to_string(class_count - 1));
  const float* relevance = found[1].GetTensorData<float>();
  const auto total = found[1].GetTensorTypeAndShapeInfo().GetElementCount();
  std::ofstream(relevance_path, std::ios::binary)
      .write(reinterpret_cast<const char*>(relevance), static_cast<std::streamsize>(total * sizeof(float)));
  std::cout.precision(9);
  std::cout << "{\"prediction\": " << std::max_element(scores, scores + class_count) - scores
            << ", \"score\": " << scores[target] << ", \"relevance\": " << std::accumulate(relevance, relevance + total, 0.0)
            << "}\n";
}

int main(int count, char** words) {
  if (count != 6) {
    std::cerr << "usage: explain EXPLAINER.onnx INPUT.f32 SHAPE CLASS RELEVANCE.f32\n";
    return 2;
  }
  try {
    explain(words[1], words[2], words[3], std::stoll(words[4]), words[5]);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}

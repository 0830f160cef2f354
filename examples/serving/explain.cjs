// Prediction and relevance in Node, with ONNX Runtime alone:
//
//     npm install onnxruntime-node
//     node explain.cjs EXPLAINER.onnx INPUT.f32 1x3x224x224 CLASS RELEVANCE.f32
//
// Tensors are files of float32, the last axis first in memory: numpy's `x.tofile(path)` and `np.fromfile(path, "float32")`.

const fs = require("node:fs");
const ort = require("onnxruntime-node");

const [, , path, inputPath, shape, target, relevancePath] = process.argv;

function floats(file) {
  const bytes = fs.readFileSync(file);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

async function main() {
  const session = await ort.InferenceSession.create(path, { executionProviders: ["cpu"] });
  const dims = shape.split("x").map(Number);
  const batch = dims[0];
  const feeds = {
    [session.inputNames[0]]: new ort.Tensor("float32", floats(inputPath), dims),
    target: new ort.Tensor("int64", new BigInt64Array(batch).fill(BigInt(target)), [batch]),
  };
  const { output, relevance } = await session.run(feeds);
  fs.writeFileSync(relevancePath, Buffer.from(relevance.data.buffer, relevance.data.byteOffset, relevance.data.byteLength));
  const classes = output.dims[1];
  const scores = Array.from(output.data.slice(0, classes));
  const sum = relevance.data.reduce((total, r) => total + r, 0);
  console.log(JSON.stringify({ prediction: scores.indexOf(Math.max(...scores)), score: scores[target], relevance: sum }));
}

main();

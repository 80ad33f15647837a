/** Prints every row of a store as JSON lines, by docs/format.md and zarrita alone: node build/reader.js STORE */
import { readFile } from "node:fs/promises";
import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

type Encoding = { name: string; variable: string; decimals: number | null; dtype: string; categories: string[] | null };
type Root = { format: number; version: number; channels: Encoding[] };
type Documents = Record<string, object>;

/** A folder whose nodes are described by the root document, as readers MUST take them. */
class Folder extends FileSystemStore {
  constructor(path: string, private documents: Documents) {
    super(path);
  }

  async get(key: zarr.AbsolutePath): Promise<Uint8Array | undefined> {
    if (!key.endsWith("/zarr.json")) return super.get(key);
    const document = this.documents[key.slice(1, -"/zarr.json".length)];
    return document && new TextEncoder().encode(JSON.stringify(document));
  }
}

async function open(path: string): Promise<{ root: Root; read: (name: string) => Promise<ArrayLike<unknown>> }> {
  const document = JSON.parse(await readFile(`${path}/zarr.json`, "utf8"));
  const root: Root = document.attributes.zstore;
  if (![1, 2, 3].includes(root.format)) throw new Error(`format ${root.format}; expected 1, 2 or 3`);
  const store = new Folder(path, document.consolidated_metadata.metadata);
  const read = async (name: string) => {
    const array = await zarr.open.v3(zarr.root(store).resolve(name), { kind: "array" });
    return (await zarr.get(array)).data as ArrayLike<unknown>;
  };
  return { root, read };
}

/** Values of a channel as their source has them; null where missing. */
function unpacked(values: ArrayLike<unknown>, channel: Encoding): (number | string | null)[] {
  const { decimals, categories } = channel;
  const missing = values instanceof Int16Array ? -32768 : values instanceof Int32Array ? -2147483648 : NaN;
  return Array.from(values, (value) => {
    const number = Number(value);
    if (categories) return number < 0 ? null : categories[number];
    if (Number.isNaN(number) || number === missing) return null;
    const scaled = decimals === null ? number : number * 10 ** -decimals;
    return channel.dtype === "float32" ? Math.fround(scaled) : scaled;
  });
}

const { root, read } = await open(process.argv[2]);
const index = `index/${String(root.version).padStart(8, "0")}`;
const [ids, pointers, starts, stops] = await Promise.all(
  ["id", "extent_ptr", "extent_start", "extent_stop"].map((name) => read(`${index}/${name}`)),
);
const times = await read("time");
const channels = await Promise.all(root.channels.map(async (each) => unpacked(await read(each.variable), each)));
for (let series = 0; series < ids.length; series++) {
  for (let extent = Number(pointers[series]); extent < Number(pointers[series + 1]); extent++) {
    for (let place = Number(starts[extent]); place < Number(stops[extent]); place++) {
      console.log(JSON.stringify([ids[series], String(times[place]), ...channels.map((values) => values[place])]));
    }
  }
}

// The message that holds a slide's cells; see deepliif_ray/viewer/packed.py.

const TYPES = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const said = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const cells = { tileSide: said.tile, part: said.part };
  for (const [name, { type, at, length: count }] of Object.entries(said.arrays)) {
    cells[name] = new TYPES[type](buffer, 4 + length + at, count);
  }
  cells.count = cells.x.length;
  return cells;
}

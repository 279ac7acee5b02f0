import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const FILE = join(import.meta.dirname, '..', '..', '..', 'deploy', 'helm', 'imageproxy', 'files', 'dashboard.json');

interface Panel {
  id: number;
  title: string;
  description: string;
  datasource: { uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  targets: { refId: string; datasource: { uid: string } }[];
}

const { panels, templating } = JSON.parse(readFileSync(FILE, 'utf8')) as {
  panels: Panel[];
  templating: { list: { name: string }[] };
};

test('the panels of the dashboard each have a place, a name and a word of help', () => {
  const taken = new Set<string>();
  for (const { title, description, gridPos } of panels) {
    expect(description, title).toMatch(/\S/);
    expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(taken, `${title} lies on another panel`).not.toContain(`${x},${y}`);
        taken.add(`${x},${y}`);
      }
    }
  }
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
  expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
});

test('the dashboard works with any data source, and asks for one release', () => {
  expect(templating.list.map(({ name }) => name)).toEqual(['datasource', 'namespace', 'job']);
  const uid = '${datasource}';
  for (const { datasource, targets } of panels) {
    for (const each of [datasource, ...targets.map((target) => target.datasource)]) expect(each.uid).toBe(uid);
    expect(new Set(targets.map(({ refId }) => refId)).size).toBe(targets.length);
  }
});

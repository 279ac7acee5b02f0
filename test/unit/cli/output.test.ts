import { describe, expect, it } from 'vitest';
import { clipTo, Output, printable, widthOf } from '../../../src/cli/output.ts';
import { bar, LiveView } from '../../../src/cli/progress.ts';
import { renderTable } from '../../../src/cli/table.ts';

class Screen {
  text = '';
  isTTY: boolean;
  columns = 40;
  rows = 24;
  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }
  write(text: string): void {
    this.text += text;
  }
}

const UTF8 = { LANG: 'C.UTF-8' };
const red = (text: string) => `\u001B[31m${text}\u001B[39m`;

describe('colours', () => {
  it.each([
    ['on a terminal', true, {}, true],
    ['not in a pipe', false, {}, false],
    ['not with NO_COLOR', true, { NO_COLOR: '1' }, false],
    ['with an empty NO_COLOR, which counts as none', true, { NO_COLOR: '' }, true],
    ['not on a dumb terminal', true, { TERM: 'dumb' }, false],
  ])('are used %s', (_, isTTY, env, coloured) => {
    const out = new Output(new Screen(isTTY), { env });
    expect(out.paint('red', 'x') !== 'x').toBe(coloured);
  });

  it('take no width, and are ended where a line is cut', () => {
    expect(widthOf(red('abc'))).toBe(3);
    const cut = clipTo(`${red('abcdef')}ghi`, 4);
    expect(cut).toBe('\u001B[31mabc…\u001B[0m');
    expect(widthOf(cut)).toBe(4);
  });
});

describe('the width of the output', () => {
  it('is that of the terminal, 80 where it tells none, and unbounded in a pipe', () => {
    const terminal = new Screen(true);
    expect(new Output(terminal, { env: {} }).columns).toBe(40);
    terminal.columns = 0;
    expect(new Output(terminal, { env: {} }).columns).toBe(80);
    expect(new Output(new Screen(false), { env: {} }).columns).toBe(Number.POSITIVE_INFINITY);
  });
});

describe('text of others', () => {
  it('loses its control characters and line breaks', () => {
    expect(printable('a\r\nb')).toBe('a b');
    expect(printable('x\u001B[2Jy\u0007')).toBe('x\\u001b[2Jy\\u0007');
    expect(printable('\u009B31m \u202Egpj')).toBe('\\u009b31m \\u202egpj');
  });
});

describe('a table', () => {
  it('has its columns below each other, also when cells are coloured', () => {
    expect(
      renderTable(
        ['a', 'b'],
        [
          [red('long'), '1'],
          ['x', '2'],
        ],
      ),
    ).toEqual(['A      B', `${red('long')}   1`, 'x      2']);
  });

  it('keeps its widths for rows that come later', () => {
    const widths: number[] = [];
    renderTable(['a', 'b'], [['longer', '1']], { widths });
    expect(renderTable(['a', 'b'], [['x', '2']], { widths, untitled: true })).toEqual(['x        2']);
  });

  it('is cut at the width of the terminal', () => {
    expect(renderTable(['a'], [['abcdefgh']], { columns: 5 })).toEqual(['A', 'abcd…']);
  });
});

describe('a bar', () => {
  it.each([
    [undefined, '░░░░'],
    [0, '░░░░'],
    [50, '██░░'],
    [100, '████'],
    [250, '████'],
  ])('of %s percent is %s', (percent, text) => {
    expect(bar(new Output(new Screen(false), { env: UTF8 }), percent, 4)).toBe(text);
  });

  it('does without block characters where the locale has none', () => {
    expect(bar(new Output(new Screen(false), { env: { LANG: 'C' } }), 50, 4)).toBe('##..');
  });
});

describe('live lines', () => {
  const line = (text: string, milestone: string) => ({ key: 'a', text, milestone });

  it('are new lines at milestones where nothing can be drawn over', () => {
    const screen = new Screen(false);
    const view = new LiveView(new Output(screen, { env: UTF8 }));
    view.show([line('10%', '0')]);
    view.show([line('20%', '0')]);
    view.show([line('30%', '1')]);
    view.end();
    expect(screen.text).toBe('10%\n30%\n');
  });

  it('are drawn over on a terminal, cut so that none wraps, and the last ones stay', () => {
    const screen = new Screen(true);
    const view = new LiveView(new Output(screen, { env: UTF8 }));
    view.show([line('x'.repeat(100), '0')]);
    view.note('a note');
    view.show([line('done', '1')]);
    view.end();
    const lines = screen.text.split('\n');
    expect(lines[0]).toBe('a note');
    expect(lines[1]).toBe(`${'x'.repeat(38)}…\u001B[K`);
    expect(screen.text.endsWith('\u001B[1Adone\u001B[K\n\u001B[0J')).toBe(true);
  });

  it('of more than the terminal has room for are those where something is being done', () => {
    const screen = new Screen(true);
    screen.rows = 5;
    const view = new LiveView(new Output(screen, { env: UTF8 }));
    const names = ['a', 'b', 'c', 'd', 'e', 'f'];
    view.show(names.map((text) => ({ ...line(text, '0'), settled: text !== 'e' })));
    view.end();
    const drawn = screen.text.split('\n').map((text) => text.replaceAll('\u001B[K', '').replaceAll('\u001B[0J', ''));
    expect(drawn).toEqual(['a', 'b', 'e', '… and 3 more', '']);
  });

  it('leave no trace when they are erased', () => {
    const screen = new Screen(true);
    const view = new LiveView(new Output(screen, { env: UTF8 }));
    view.show([line('looking', '0')]);
    view.note('');
    view.end({ erase: true });
    expect(screen.text.endsWith('\u001B[1A\u001B[0J')).toBe(true);
  });
});

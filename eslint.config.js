import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist', 'build', 'node_modules', '.tap'] },
  js.configs.recommended,
  ...tseslint.configs.strict,
  {
    rules: {
      // Typed-array reads are `number | undefined` to the compiler and always numbers within bounds that are checked.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // Run loops are endless by design.
      'no-constant-condition': ['error', { checkLoops: false }],
      '@typescript-eslint/no-unnecessary-condition': 'off',
      '@typescript-eslint/prefer-literal-enum-member': ['error', { allowBitwiseExpressions: true }],
    },
  },
  { files: ['**/*.mjs', '**/*.js'], languageOptions: { globals: { process: 'readonly', console: 'readonly' } } },
);
